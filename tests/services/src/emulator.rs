//! The Firestore emulator: one that was started here, or one that the environment names.

use std::{
    ffi::OsString,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::Duration,
};

use rustix::process::Signal;

use crate::{
    engine::{Engine, Look, Recipe},
    folder::{self, Medium},
    given, programs,
};

/// Variable with the address of a running emulator.
const GIVEN: &str = "RNOSTR_TEST_FIRESTORE";
const PACKAGE: &str = "google-cloud-cli-firestore-emulator";
const JAVA_PACKAGE: &str = "openjdk-17-jre-headless";
const JAVA_MAJOR_MIN: u32 = 17;
/// Folder in which Debian's packages install Java.
const JAVA_HOMES: &str = "/usr/lib/jvm";
/// The emulator's folder in a Google Cloud SDK, and the main class of its jar.
const IN_SDK: &str = "platform/cloud-firestore-emulator";
const CLASS: &str = "com.google.cloud.datastore.emulator.firestore.CloudFirestore";
/// Options of the JVM. The emulator runs for a short time, so the first compiler's code is fast enough and shortens a
/// start by a third. One thread of the garbage collector is enough.
const JVM_WORDS: [&str; 5] =
    ["-Xmx1g", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-XX:-UsePerfData", "-Duser.language=en"];

/// A Firestore emulator, which keeps everything in memory. Dropping this ends an emulator that was started here.
///
/// The emulator enforces neither indexes nor lifetimes nor the number of writes in a commit. Tests that share it use
/// projects of their own: see [`FirestoreEmulator::project`].
#[derive(Debug)]
pub struct FirestoreEmulator {
    host: String,
    /// The engine, if it was started here.
    own: Option<Engine>,
}

impl FirestoreEmulator {
    /// Checks that an emulator can be started here.
    ///
    /// # Errors
    /// The missing program, and the package that installs it.
    pub fn available() -> Result<(), String> {
        find_jar()?;
        find_java().map(drop)
    }

    /// Checks that [`FirestoreEmulator::shared`] can give an emulator.
    ///
    /// # Errors
    /// See [`FirestoreEmulator::available`].
    pub fn shared_available() -> Result<(), String> {
        if given(GIVEN).is_some() { Ok(()) } else { Self::available() }
    }

    /// The packages to install before an emulator can be started here. The first is the emulator's own, which comes
    /// from Google's repository.
    pub fn missing_packages() -> Vec<&'static str> {
        let missing = [(find_jar().is_err(), PACKAGE), (find_java().is_err(), JAVA_PACKAGE)];
        missing.into_iter().filter_map(|(is_missing, package)| is_missing.then_some(package)).collect()
    }

    /// Starts an emulator.
    ///
    /// # Panics
    /// When the emulator does not start, with its log, or is not [`FirestoreEmulator::available`].
    pub fn start() -> Self {
        let found = find_jar().and_then(|jar| Ok((jar, find_java()?)));
        let (jar, java) = found.unwrap_or_else(|why| panic!("{why}"));
        let mut command: Vec<OsString> = vec![java.into()];
        command.extend(JVM_WORDS.map(Into::into));
        command.extend(["-cp".into(), jar.into(), CLASS.into(), "--host".into(), "127.0.0.1".into()]);
        let name = "the Firestore emulator";
        let recipe = Recipe { name, command, port_option: "--port", port_prefix: "", ending: Signal::KILL, is_ready };
        let own = Engine::start(recipe, folder::new("rnostr-firestore-", Medium::Disk, None));
        Self { host: own.address(), own: Some(own) }
    }

    /// The emulator that all tests of this process share: the one that `RNOSTR_TEST_FIRESTORE` names, else one that the
    /// first call starts and that ends with the process.
    ///
    /// # Panics
    /// Like [`FirestoreEmulator::start`]. [`FirestoreEmulator::shared_available`] checks for it beforehand.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<FirestoreEmulator> = OnceLock::new();
        SHARED.get_or_init(|| given(GIVEN).map_or_else(Self::start, |host| Self { host, own: None }))
    }

    /// The emulator's address, in the form of `FIRESTORE_EMULATOR_HOST`: `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        self.host.clone()
    }

    /// The id of an empty project that no other test has.
    pub fn project(&self) -> String {
        crate::unique("test-")
    }

    /// The emulator's process id; `None` when it is stopped or was not started here.
    pub fn pid(&self) -> Option<u32> {
        self.own.as_ref()?.pid()
    }

    /// Ends the emulator by SIGKILL.
    ///
    /// # Panics
    /// When the emulator was not started here.
    pub fn kill(&mut self) {
        self.own().stop();
    }

    /// Starts the emulator again, empty and at the same port. A running one is killed first.
    ///
    /// # Panics
    /// When the emulator does not start, with its log, or was not started here.
    pub fn restart(&mut self) {
        self.own().restart();
    }

    /// Suspends the emulator's process. The system still accepts connections for it.
    ///
    /// # Panics
    /// When the emulator is stopped or was not started here.
    pub fn pause(&mut self) {
        self.own().pause();
    }

    /// Lets the emulator run again after [`FirestoreEmulator::pause`].
    ///
    /// # Panics
    /// When the emulator is stopped or was not started here.
    pub fn resume(&mut self) {
        self.own().resume();
    }

    fn own(&mut self) -> &mut Engine {
        self.own.as_mut().expect("the environment named this emulator, so tests cannot stop it")
    }
}

/// Finds the emulator's jar in the Google Cloud SDKs of this machine.
fn find_jar() -> Result<PathBuf, String> {
    let is_jar = |name: &str| {
        let is_ours = name.starts_with("cloud-firestore-emulator");
        is_ours && Path::new(name).extension().is_some_and(|extension| extension == "jar")
    };
    let jars =
        sdk_folders().into_iter().find_map(|sdk| programs::versions(&sdk.join(IN_SDK), is_jar).into_iter().next());
    jars.ok_or_else(|| {
        format!(
            "the Firestore emulator is not installed: install the package {PACKAGE} of Google's repository \
             (deb https://packages.cloud.google.com/apt cloud-sdk main), or name an SDK's folder in CLOUDSDK_ROOT_DIR"
        )
    })
}

fn sdk_folders() -> Vec<PathBuf> {
    let mut folders: Vec<_> = std::env::var_os("CLOUDSDK_ROOT_DIR").into_iter().map(PathBuf::from).collect();
    folders.push("/usr/lib/google-cloud-sdk".into());
    // PATH may hold a link to `gcloud`, which itself lies in the SDK's `bin`.
    let gcloud = programs::in_path("gcloud").and_then(|gcloud| fs::canonicalize(gcloud).ok());
    folders.extend(gcloud.iter().filter_map(|gcloud| gcloud.ancestors().nth(2)).map(Path::to_path_buf));
    folders
}

/// Finds a Java that is new enough.
fn find_java() -> Result<PathBuf, String> {
    let home = std::env::var_os("JAVA_HOME").into_iter().map(|home| PathBuf::from(home).join("bin/java"));
    let homes = programs::versions(Path::new(JAVA_HOMES), |_| true).into_iter().map(|home| home.join("bin/java"));
    let mut programs = home.chain(programs::in_path("java")).chain(homes);
    programs.find(|java| java_major(java).is_some_and(|major| major >= JAVA_MAJOR_MIN)).ok_or_else(|| {
        format!("Java {JAVA_MAJOR_MIN} or newer, for the Firestore emulator, is not installed: install {JAVA_PACKAGE}")
    })
}

/// Major version in the first line of `java -version`, which is like `openjdk version "17.0.15"`.
fn java_major(java: &Path) -> Option<u32> {
    let output = Command::new(java).arg("-version").output().ok()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let (_, version) = said.split_once("version \"")?;
    version.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
}

fn is_ready(look: &Look<'_>) -> bool {
    let get = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, look.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")?;
        // The emulator keeps the connection open, so only the first line is read.
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer)?;
        Ok(answer.starts_with("HTTP/1.1 200"))
    };
    get().unwrap_or(false)
}
