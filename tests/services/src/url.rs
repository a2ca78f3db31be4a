//! URLs of servers, divided into their parts.

/// `scheme://user:password@host:port/database?parameters`; any part may be empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    scheme: String,
    /// User and password, without the `@`.
    user: String,
    /// `host:port`
    pub(crate) address: String,
    pub(crate) database: String,
    /// Parameters, without the `?`.
    parameters: String,
}

impl Url {
    /// Divides a URL into its parts. Without a `://` all of it is the address.
    pub(crate) fn parse(url: &str) -> Self {
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        let (path, parameters) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = path.split_once('/').unwrap_or((path, ""));
        let (user, address) = authority.rsplit_once('@').unwrap_or(("", authority));
        let [scheme, user, address, database, parameters] =
            [scheme, user, address, database, parameters].map(str::to_owned);
        Self { scheme, user, address, database, parameters }
    }

    /// The same URL with another database.
    pub(crate) fn with_database(&self, database: &str) -> Self {
        Self { database: database.to_owned(), ..self.clone() }
    }

    /// The same URL with another address, `host:port`.
    pub(crate) fn with_address(&self, address: &str) -> Self {
        Self { address: address.to_owned(), ..self.clone() }
    }

    /// The same URL over a socket in `folder`.
    pub(crate) fn by_socket(&self, folder: &str) -> Self {
        let port = self.address.rsplit_once(':').map_or("5432", |(_, port)| port);
        let (user, password) = self.user.split_once(':').unwrap_or((&self.user, ""));
        let mut parameters = format!("host={folder}&port={port}");
        for (name, value) in [("user", user), ("password", password)] {
            if !value.is_empty() {
                parameters.push_str(&format!("&{name}={value}"));
            }
        }
        Self { user: String::new(), address: String::new(), parameters, ..self.clone() }
    }
}

impl std::fmt::Display for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://", self.scheme)?;
        if !self.user.is_empty() {
            write!(f, "{}@", self.user)?;
        }
        write!(f, "{}/{}", self.address, self.database)?;
        if self.parameters.is_empty() { Ok(()) } else { write!(f, "?{}", self.parameters) }
    }
}

#[cfg(test)]
mod tests {
    use super::Url;

    #[test]
    fn parts_are_put_together_again() {
        for url in [
            "postgres://rnostr@127.0.0.1:5432/postgres",
            "postgres://rnostr:se%40cret@127.0.0.1:5432/postgres?sslmode=disable",
            "postgres:///postgres?host=/tmp/x&port=5433&user=rnostr",
        ] {
            assert_eq!(Url::parse(url).to_string(), url);
        }
    }

    #[test]
    fn parts_are_replaced() {
        let url = Url::parse("postgres://rnostr:secret@127.0.0.1:5433/postgres");
        assert_eq!(url.with_database("other").to_string(), "postgres://rnostr:secret@127.0.0.1:5433/other");
        assert_eq!(url.with_address("127.0.0.1:1").to_string(), "postgres://rnostr:secret@127.0.0.1:1/postgres");
        assert_eq!(
            url.by_socket("/tmp/x").to_string(),
            "postgres:///postgres?host=/tmp/x&port=5433&user=rnostr&password=secret"
        );
    }

    #[test]
    fn an_address_is_found() {
        for url in ["redis://127.0.0.1:6379", "redis://:secret@127.0.0.1:6379/3", "127.0.0.1:6379"] {
            assert_eq!(Url::parse(url).address, "127.0.0.1:6379");
        }
    }
}
