//! PostgreSQL: a server that was started here, or one that the environment names.

use std::{
    ffi::OsString,
    fmt::Write as _,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::Duration,
};

use rustix::process::Signal;

use crate::{
    engine::{Engine, Look, Recipe},
    folder::{self, Medium, User},
    given,
    process::Process,
    programs,
    url::Url,
};

/// Variable with the admin's URL of a running server.
const GIVEN: &str = "RNOSTR_TEST_POSTGRES";
const PACKAGE: &str = "postgresql";
/// Folder in which Debian's packages install the programs of each version.
const VERSIONS: &str = "/usr/lib/postgresql";
/// The superuser of a server that is started here.
const SUPERUSER: &str = "rnostr";
/// Name of the cluster's folder in the engine's folder.
const DATA: &str = "data";
const CONNECTIONS_MAX: u32 = 300;
/// Longest waits: for `initdb`, and for a client's connection.
const INIT_SECS_MAX: u64 = 120;
const CONNECT_SECS_MAX: &str = "30";

/// Options of a server.
#[derive(Debug, Clone, Default)]
pub struct Options {
    fast: bool,
    password: Option<String>,
    tls: Option<Tls>,
    settings: Vec<(String, String)>,
}

/// A certificate that the caller has made, and its key, as PEM files.
#[derive(Debug, Clone)]
pub struct Tls {
    /// The certificate's chain.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
    /// Whether TCP connections without TLS are refused.
    pub required: bool,
}

impl Options {
    /// Options of a durable server: commits survive [`Postgres::stop_immediate`]. This is the default.
    pub fn durable() -> Self {
        Self::default()
    }

    /// Options for quick tests: the server syncs nothing, so a crash may lose commits; autovacuum is off; and the data
    /// lie in memory if there is enough of it.
    pub fn fast() -> Self {
        Self { fast: true, ..Self::default() }
    }

    /// Makes the server ask for this password, by SCRAM-SHA-256, on TCP and on the socket. URLs hold the password as it
    /// is, so it may only have letters and digits.
    #[must_use]
    pub fn with_password(self, password: &str) -> Self {
        Self { password: Some(password.to_owned()), ..self }
    }

    /// Makes the server speak TLS on TCP. The given URLs do not name TLS: a test adds its own `sslmode`.
    #[must_use]
    pub fn with_tls(self, tls: Tls) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// Adds a line to `postgresql.conf`, which overrides the lines above it.
    #[must_use]
    pub fn with_setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// A PostgreSQL server. Dropping this ends a server that was started here, and removes its data.
///
/// Methods that would disturb other tests on a shared server take `&mut self`, which [`Postgres::shared`] does not
/// give.
#[derive(Debug)]
pub struct Postgres {
    psql: PathBuf,
    admin: Url,
    /// Last words of `create database`; see [`Postgres::strategy`].
    strategy: OnceLock<&'static str>,
    /// The engine, if it was started here.
    own: Option<Engine>,
}

impl Postgres {
    /// Checks that a server can be started here.
    ///
    /// # Errors
    /// The missing program, and the package that installs it.
    pub fn available() -> Result<(), String> {
        Programs::find().map(drop)
    }

    /// Checks that [`Postgres::shared`] can give a server.
    ///
    /// # Errors
    /// See [`Postgres::available`].
    pub fn shared_available() -> Result<(), String> {
        if given(GIVEN).is_some() { Programs::find_psql().map(drop) } else { Self::available() }
    }

    /// The packages to install before a server can be started here.
    pub fn missing_packages() -> Vec<&'static str> {
        if Self::available().is_ok() { Vec::new() } else { vec![PACKAGE] }
    }

    /// Starts a server over a new cluster. If this process runs as root, the server runs as the user `postgres` or,
    /// without such a user, as `nobody`.
    ///
    /// # Panics
    /// When the server does not start, with its log, or is not [`Postgres::available`].
    pub fn start(options: Options) -> Self {
        let programs = Programs::find().unwrap_or_else(|why| panic!("{why}"));
        let user = User::beside_root();
        let place = if options.fast { Medium::Memory } else { Medium::Disk };
        let folder = folder::new("rnostr-postgres-", place, user);
        make_cluster(&programs, user, folder.path(), &options);
        let mut command = as_user(user, &programs.postgres);
        command.extend(["-D".into(), folder.path().join(DATA).into()]);
        let recipe =
            Recipe { name: "PostgreSQL", command, port_option: "-p", port_prefix: "", ending: Signal::QUIT, is_ready };
        let own = Engine::start(recipe, folder);
        let password = options.password.map(|password| format!(":{password}")).unwrap_or_default();
        let admin = Url::parse(&format!("postgres://{SUPERUSER}{password}@{}/postgres", own.address()));
        Self { psql: programs.psql, admin, strategy: OnceLock::new(), own: Some(own) }
    }

    /// The server that all tests of this process share: the one that `RNOSTR_TEST_POSTGRES` names, else one with
    /// [`Options::fast`] that the first call starts and that ends with the process.
    ///
    /// # Panics
    /// Like [`Postgres::start`]. [`Postgres::shared_available`] checks for it beforehand.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(|| {
            let Some(url) = given(GIVEN) else { return Self::start(Options::fast()) };
            let psql = Programs::find_psql().unwrap_or_else(|why| panic!("{why}"));
            Self { psql, admin: Url::parse(&url), strategy: OnceLock::new(), own: None }
        })
    }

    /// A database's URL over TCP: `postgres://rnostr@127.0.0.1:PORT/database`.
    pub fn url(&self, database: &str) -> String {
        self.admin.with_database(database).to_string()
    }

    /// A database's URL at another address, `host:port`, such as a [`Proxy`](crate::Proxy) before this server.
    pub fn url_at(&self, address: &str, database: &str) -> String {
        self.admin.with_address(address).with_database(database).to_string()
    }

    /// A database's URL over the server's socket: `postgres:///database?host=FOLDER&port=PORT&user=rnostr`.
    ///
    /// # Panics
    /// When a server that the environment names does not answer.
    pub fn socket_url(&self, database: &str) -> String {
        let folder = self.own.as_ref().map_or_else(
            || {
                let folders = self.psql(&self.admin.to_string(), "show unix_socket_directories");
                let folders =
                    folders.unwrap_or_else(|why| panic!("the server does not say where its socket is: {why}"));
                folders.split(',').next().unwrap_or_default().trim().to_owned()
            },
            |own| own.folder().to_string_lossy().into_owned(),
        );
        self.admin.by_socket(&folder).with_database(database).to_string()
    }

    /// The server's address, `host:port`.
    pub fn address(&self) -> String {
        self.admin.address.clone()
    }

    /// Makes an empty database that no other test has, and returns its URL.
    ///
    /// # Panics
    /// When the server does not answer.
    pub fn create_database(&self) -> String {
        self.create_database_from("template1")
    }

    /// Copies a database, given by its name or its URL, and returns the copy's URL. No client may be connected to the
    /// copied database.
    ///
    /// # Panics
    /// When the server refuses or does not answer.
    pub fn create_database_from(&self, template: &str) -> String {
        let name = crate::unique("test_");
        let template = database_name(template);
        let strategy = self.strategy();
        self.admin_sql(&format!("create database \"{name}\" template \"{template}\" {strategy}"));
        self.url(&name)
    }

    /// Drops a database and ends all connections to it. A database takes 8 MB of disk, so tests that make many should
    /// drop them.
    ///
    /// # Panics
    /// When the server does not answer.
    pub fn drop_database(&self, database: &str) {
        self.admin_sql(&format!("drop database if exists \"{}\" with (force)", database_name(database)));
    }

    /// Runs SQL by `psql` and returns its output: one line a row, columns divided by `|`.
    ///
    /// # Errors
    /// The message of `psql`.
    pub fn psql(&self, url: &str, sql: &str) -> Result<String, String> {
        let mut command = Command::new(&self.psql);
        // Variables of the environment would override the address and options of the URL.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
            command.env_remove(name);
        }
        command.env("PGCONNECT_TIMEOUT", CONNECT_SECS_MAX).current_dir("/");
        command.args(["--no-psqlrc", "--no-password", "--quiet", "--no-align", "--tuples-only", "--command", sql, url]);
        let output = command.output().map_err(|error| format!("psql does not run: {error}"))?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }

    /// The server's process id; `None` when it is stopped or was not started here.
    pub fn pid(&self) -> Option<u32> {
        self.own.as_ref()?.pid()
    }

    /// Ends the server like a crash, by the signal of `pg_ctl stop -m immediate`, so that the next start recovers.
    /// Returns when all its processes are gone.
    ///
    /// # Panics
    /// When the server was not started here.
    pub fn stop_immediate(&mut self) {
        self.own().stop();
    }

    /// Starts the server again, over the same data and at the same port. A running server is first ended like a crash.
    ///
    /// # Panics
    /// When the server does not start, with its log, or was not started here.
    pub fn restart(&mut self) {
        self.own().restart();
    }

    /// Suspends all processes of the server. The system still accepts connections for them.
    ///
    /// # Panics
    /// When the server is stopped or was not started here.
    pub fn pause(&mut self) {
        self.own().pause();
    }

    /// Lets the server run again after [`Postgres::pause`].
    ///
    /// # Panics
    /// When the server is stopped or was not started here.
    pub fn resume(&mut self) {
        self.own().resume();
    }

    fn own(&mut self) -> &mut Engine {
        self.own.as_mut().expect("the environment named this server, so tests cannot stop it")
    }

    /// Fastest way to copy a template. Without syncs, copying its files takes 27 ms of CPU, and copying through the
    /// log, the default since PostgreSQL 15, takes 44 ms. With syncs, copying files would wait for the disk.
    fn strategy(&self) -> &'static str {
        self.strategy.get_or_init(|| {
            let copies =
                "select current_setting('server_version_num')::int >= 150000 and current_setting('fsync') = 'off'";
            if self.admin_sql(copies) == "t" { "strategy file_copy" } else { "" }
        })
    }

    fn admin_sql(&self, sql: &str) -> String {
        self.psql(&self.admin.to_string(), sql).unwrap_or_else(|why| panic!("PostgreSQL refuses `{sql}`: {why}"))
    }
}

/// Whether the server serves, by the file that `pg_ctl` reads. Its first line is the process id, its eighth the state.
fn is_ready(look: &Look<'_>) -> bool {
    let file = fs::read_to_string(look.folder.join(DATA).join("postmaster.pid")).unwrap_or_default();
    let mut lines = file.lines().map(str::trim);
    lines.next() == Some(&look.pid.to_string()) && lines.nth(6) == Some("ready")
}

/// Programs of one PostgreSQL version.
struct Programs {
    initdb: PathBuf,
    postgres: PathBuf,
    psql: PathBuf,
}

impl Programs {
    fn find() -> Result<Self, String> {
        let of_server = |folder: &PathBuf| folder.join("initdb").is_file() && folder.join("postgres").is_file();
        let folder = program_folders().into_iter().find(of_server).ok_or_else(|| {
            format!("initdb and postgres are neither in PATH nor in {VERSIONS}/*/bin: install the package {PACKAGE}")
        })?;
        let beside = folder.join("psql");
        let psql = if beside.is_file() { beside } else { Self::find_psql()? };
        Ok(Self { initdb: folder.join("initdb"), postgres: folder.join("postgres"), psql })
    }

    fn find_psql() -> Result<PathBuf, String> {
        // In Debian's PATH, `psql` is a script that looks for the program itself.
        let programs =
            versioned_folders().into_iter().chain(programs::path_folders()).map(|folder| folder.join("psql"));
        programs.into_iter().find(|program| program.is_file()).ok_or_else(|| {
            format!(
                "psql is neither in PATH nor in {VERSIONS}/*/bin: install the package {PACKAGE} or postgresql-client"
            )
        })
    }
}

fn program_folders() -> Vec<PathBuf> {
    let mut folders = programs::path_folders();
    folders.extend(versioned_folders());
    folders
}

fn versioned_folders() -> Vec<PathBuf> {
    let versions = programs::versions(Path::new(VERSIONS), |_| true);
    versions.into_iter().map(|version| version.join("bin")).collect()
}

/// First words of a command that runs `program` as `user`.
fn as_user(user: Option<User>, program: &Path) -> Vec<OsString> {
    let mut words = Vec::new();
    if let Some(User { uid, gid }) = user {
        words.extend(["setpriv".into(), format!("--reuid={uid}").into(), format!("--regid={gid}").into()]);
        words.extend(["--clear-groups".into(), "--".into()]);
    }
    words.push(program.into());
    words
}

/// Makes the cluster in `folder/data`, and configures it.
fn make_cluster(programs: &Programs, user: Option<User>, folder: &Path, options: &Options) {
    let data = folder.join(DATA);
    let mut command = as_user(user, &programs.initdb);
    command.extend(["-D".into(), data.clone().into()]);
    let words = ["--no-sync", "--encoding=UTF8", "--locale=C", "--username", SUPERUSER];
    command.extend(words.map(Into::into));
    if let Some(password) = &options.password {
        let file = folder.join("password");
        write_private(&file, password.as_bytes(), user);
        command.extend(["-A".into(), "scram-sha-256".into(), "--pwfile".into(), file.into()]);
    } else {
        command.extend(["-A".into(), "trust".into()]);
    }
    let made = Process::start(&command, folder, Signal::KILL).finish(Duration::from_secs(INIT_SECS_MAX));
    made.unwrap_or_else(|why| panic!("initdb fails: {why}"));
    configure(&data, folder, user, options);
}

fn configure(data: &Path, folder: &Path, user: Option<User>, options: &Options) {
    let mut lines = format!(
        "\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\nmax_connections = {CONNECTIONS_MAX}\n",
        folder.display()
    );
    if options.fast {
        lines.push_str("fsync = off\nsynchronous_commit = off\nfull_page_writes = off\nautovacuum = off\n");
        lines.push_str("max_wal_size = 256MB\n");
    }
    if let Some(tls) = &options.tls {
        let (certificate, key) = (data.join("server.crt"), data.join("server.key"));
        for (from, to) in [(&tls.certificate, certificate), (&tls.key, key)] {
            let bytes = fs::read(from).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
            write_private(&to, &bytes, user);
        }
        lines.push_str("ssl = on\n");
    }
    for (name, value) in &options.settings {
        let _ = writeln!(lines, "{name} = '{}'", value.replace('\'', "''"));
    }
    let file = data.join("postgresql.conf");
    let made = fs::read_to_string(&file).expect("initdb has made it");
    fs::write(&file, made + &lines).expect("it can be written");

    let method = if options.password.is_some() { "scram-sha-256" } else { "trust" };
    let host = if options.tls.as_ref().is_some_and(|tls| tls.required) { "hostssl" } else { "host" };
    let access = format!("local all all {method}\n{host} all all 127.0.0.1/32 {method}\n");
    fs::write(data.join("pg_hba.conf"), access).expect("initdb has made it");
}

/// Writes a file that only the server may read.
fn write_private(file: &Path, bytes: &[u8], user: Option<User>) {
    fs::write(file, bytes).expect("the folder is ours");
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).expect("the file is ours");
    if let Some(user) = user {
        user.own(file);
    }
}

/// The database's name, given by itself or in a URL.
fn database_name(database: &str) -> String {
    if database.contains("://") { Url::parse(database).database } else { database.to_owned() }
}
