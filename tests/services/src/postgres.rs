//! PostgreSQL, a server of its own or one that is given.

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

/// Names the admin's URL of a server that runs already.
const GIVEN: &str = "RNOSTR_TEST_POSTGRES";
const PACKAGE: &str = "postgresql";
/// Where Debian's packages put the programs of each version.
const VERSIONS: &str = "/usr/lib/postgresql";
/// The superuser of a server that is started here.
const SUPERUSER: &str = "rnostr";
/// The cluster in its folder.
const DATA: &str = "data";
const CONNECTIONS_MAX: u32 = 300;
/// Longest waits: for a cluster to be made, and for a client to be connected.
const INIT_SECS_MAX: u64 = 120;
const CONNECT_SECS_MAX: &str = "30";

/// How a server is set up.
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
    /// Its private key.
    pub key: PathBuf,
    /// Whether TCP connections without TLS are refused.
    pub required: bool,
}

impl Options {
    /// As in earnest: what was committed survives [`Postgres::stop_immediate`]. The same as the default.
    pub fn durable() -> Self {
        Self::default()
    }

    /// For quick tests: nothing is synced, a crash may lose commits, no autovacuum comes in between, and the data lie in
    /// memory where there is enough of it.
    pub fn fast() -> Self {
        Self { fast: true, ..Self::default() }
    }

    /// Asks for this password, by SCRAM-SHA-256, on TCP and on the socket. It stands in URLs as it is: letters and digits.
    #[must_use]
    pub fn with_password(self, password: &str) -> Self {
        Self { password: Some(password.to_owned()), ..self }
    }

    /// Speaks TLS on TCP. URLs say nothing about it: a test adds its own `sslmode`.
    #[must_use]
    pub fn with_tls(self, tls: Tls) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// One more line of `postgresql.conf`, over those above it.
    #[must_use]
    pub fn with_setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// A PostgreSQL server. One that was started here is ended when this is dropped, and its data removed.
///
/// What a shared server must not suffer takes `&mut self`, which [`Postgres::shared`] does not give.
#[derive(Debug)]
pub struct Postgres {
    psql: PathBuf,
    admin: Url,
    /// The end of a command that makes a database; see [`Postgres::strategy`].
    strategy: OnceLock<&'static str>,
    /// What was started here.
    own: Option<Engine>,
}

impl Postgres {
    /// Whether a server can be started here.
    ///
    /// # Errors
    /// What is missing, and the package that brings it.
    pub fn available() -> Result<(), String> {
        Programs::find().map(drop)
    }

    /// Whether [`Postgres::shared`] has a server to give.
    ///
    /// # Errors
    /// See [`Postgres::available`].
    pub fn shared_available() -> Result<(), String> {
        if given(GIVEN).is_some() { Programs::find_psql().map(drop) } else { Self::available() }
    }

    /// The packages that are to be installed before a server can be started here.
    pub fn missing_packages() -> Vec<&'static str> {
        if Self::available().is_ok() { Vec::new() } else { vec![PACKAGE] }
    }

    /// Starts a server over a new cluster. As root it runs as the user `postgres`, or else `nobody`.
    ///
    /// # Panics
    /// When it does not start, with its log; when it is not [`Postgres::available`].
    pub fn start(options: Options) -> Self {
        let programs = Programs::find().unwrap_or_else(|why| panic!("{why}"));
        let user = User::beside_root();
        let place = if options.fast { Medium::Memory } else { Medium::Disk };
        let folder = folder::new("rnostr-postgres-", place, user);
        make_cluster(&programs, user, folder.path(), &options);
        let mut command = as_user(user, &programs.postgres);
        command.extend(["-D".into(), folder.path().join(DATA).into()]);
        let recipe = Recipe { name: "PostgreSQL", command, port_option: "-p", ending: Signal::QUIT, is_ready };
        let own = Engine::start(recipe, folder);
        let password = options.password.map(|password| format!(":{password}")).unwrap_or_default();
        let admin = Url::parse(&format!("postgres://{SUPERUSER}{password}@{}/postgres", own.address()));
        Self { psql: programs.psql, admin, strategy: OnceLock::new(), own: Some(own) }
    }

    /// The server that all tests of this process share: the one that `RNOSTR_TEST_POSTGRES` names, or else one with
    /// [`Options::fast`] that is started now and ends with the process.
    ///
    /// # Panics
    /// As [`Postgres::start`]; [`Postgres::shared_available`] tells before.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(|| {
            let Some(url) = given(GIVEN) else { return Self::start(Options::fast()) };
            let psql = Programs::find_psql().unwrap_or_else(|why| panic!("{why}"));
            Self { psql, admin: Url::parse(&url), strategy: OnceLock::new(), own: None }
        })
    }

    /// A database's URL by TCP: `postgres://rnostr@127.0.0.1:PORT/database`.
    pub fn url(&self, database: &str) -> String {
        self.admin.with_database(database).to_string()
    }

    /// The same at another address, `host:port`, as of a [`Proxy`](crate::Proxy) before this server.
    pub fn url_at(&self, address: &str, database: &str) -> String {
        self.admin.with_address(address).with_database(database).to_string()
    }

    /// A database's URL by the server's socket: `postgres:///database?host=FOLDER&port=PORT&user=rnostr`.
    ///
    /// # Panics
    /// When a server that is given does not answer.
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

    /// Where it listens, `host:port`.
    pub fn address(&self) -> String {
        self.admin.address.clone()
    }

    /// Makes an empty database that no other test has, and gives its URL.
    ///
    /// # Panics
    /// When the server does not answer.
    pub fn create_database(&self) -> String {
        self.create_database_from("template1")
    }

    /// Makes a copy of a database, which is named by its name or its URL, and gives the copy's URL. Nobody may be
    /// connected to the one that is copied.
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

    /// Takes a database away, with all connections to it. One takes 8 MB of disk, so tests that make many had better.
    ///
    /// # Panics
    /// When the server does not answer.
    pub fn drop_database(&self, database: &str) {
        self.admin_sql(&format!("drop database if exists \"{}\" with (force)", database_name(database)));
    }

    /// What `psql` prints for some SQL: a line a row, columns divided by `|`.
    ///
    /// # Errors
    /// What `psql` says.
    pub fn psql(&self, url: &str, sql: &str) -> Result<String, String> {
        let mut command = Command::new(&self.psql);
        // Nothing of the environment that says where and how to connect.
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

    /// The server's process id; none of one that is stopped or was not started here.
    pub fn pid(&self) -> Option<u32> {
        self.own.as_ref()?.pid()
    }

    /// Ends it as a crash would, by `pg_ctl stop -m immediate`'s signal: the next start recovers. Returns when all its
    /// processes are gone.
    ///
    /// # Panics
    /// When it was not started here.
    pub fn stop_immediate(&mut self) {
        self.own().stop();
    }

    /// Starts it again over the same data and at the same port, after [`Postgres::stop_immediate`] if it runs.
    ///
    /// # Panics
    /// When it does not start, with its log; when it was not started here.
    pub fn restart(&mut self) {
        self.own().restart();
    }

    /// Stalls it: all its processes stop where they are, and the system goes on accepting connections for them.
    ///
    /// # Panics
    /// When it is stopped or was not started here.
    pub fn pause(&mut self) {
        self.own().pause();
    }

    /// Lets it go on after [`Postgres::pause`].
    ///
    /// # Panics
    /// When it is stopped or was not started here.
    pub fn resume(&mut self) {
        self.own().resume();
    }

    fn own(&mut self) -> &mut Engine {
        self.own.as_mut().expect("a server that is given is not ours to stop")
    }

    /// Where nothing is synced, files are copied with 27 ms of CPU, and by way of the log, as is usual since PostgreSQL 15,
    /// with 44. Where it is, copying files waits for the disk.
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

/// Looks where pg_ctl does: the first line is the process id, the eighth says how far it is.
fn is_ready(look: &Look<'_>) -> bool {
    let file = fs::read_to_string(look.folder.join(DATA).join("postmaster.pid")).unwrap_or_default();
    let mut lines = file.lines().map(str::trim);
    lines.next() == Some(&look.pid.to_string()) && lines.nth(6) == Some("ready")
}

/// The programs of one version.
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
        // The one in Debian's PATH is a script that looks for this one.
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

/// A command's first words, which make it run as another user.
fn as_user(user: Option<User>, program: &Path) -> Vec<OsString> {
    let mut words = Vec::new();
    if let Some(User { uid, gid }) = user {
        words.extend(["setpriv".into(), format!("--reuid={uid}").into(), format!("--regid={gid}").into()]);
        words.extend(["--clear-groups".into(), "--".into()]);
    }
    words.push(program.into());
    words
}

/// Makes the cluster in `folder/data`, and its configuration.
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

/// Writes what only the server may read.
fn write_private(file: &Path, bytes: &[u8], user: Option<User>) {
    fs::write(file, bytes).expect("the folder is ours");
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).expect("the file is ours");
    if let Some(user) = user {
        user.own(file);
    }
}

/// The name in a URL, or the name that it is.
fn database_name(database: &str) -> String {
    if database.contains("://") { Url::parse(database).database } else { database.to_owned() }
}
