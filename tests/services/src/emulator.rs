//! The emulator of Firestore, one of its own or one that is given.

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

/// Names the address of an emulator that runs already.
const GIVEN: &str = "RNOSTR_TEST_FIRESTORE";
const PACKAGE: &str = "google-cloud-cli-firestore-emulator";
const JAVA_PACKAGE: &str = "openjdk-17-jre-headless";
const JAVA_MAJOR_MIN: u32 = 17;
/// Where Debian's packages put Java.
const JAVA_HOMES: &str = "/usr/lib/jvm";
/// The emulator's folder in a Google Cloud SDK, and the class that its jar starts by.
const IN_SDK: &str = "platform/cloud-firestore-emulator";
const CLASS: &str = "com.google.cloud.datastore.emulator.firestore.CloudFirestore";
/// What the machine is told. It is not at work for long: the first compiler's code serves, and takes a third of the time
/// off a start; one collector's thread is enough.
const JVM_WORDS: [&str; 5] =
    ["-Xmx1g", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-XX:-UsePerfData", "-Duser.language=en"];

/// An emulator of Firestore, which keeps everything in memory. One that was started here is ended when this is dropped.
///
/// It enforces neither indexes nor lifetimes nor the number of writes in a commit. Tests that share it keep apart by
/// [`FirestoreEmulator::project`].
#[derive(Debug)]
pub struct FirestoreEmulator {
    host: String,
    /// What was started here.
    own: Option<Engine>,
}

impl FirestoreEmulator {
    /// Whether an emulator can be started here.
    ///
    /// # Errors
    /// What is missing, and the package that brings it.
    pub fn available() -> Result<(), String> {
        find_jar()?;
        find_java().map(drop)
    }

    /// Whether [`FirestoreEmulator::shared`] has one to give.
    ///
    /// # Errors
    /// See [`FirestoreEmulator::available`].
    pub fn shared_available() -> Result<(), String> {
        if given(GIVEN).is_some() { Ok(()) } else { Self::available() }
    }

    /// The packages that are to be installed before an emulator can be started here; the emulator's own is first, and
    /// comes from Google's repository.
    pub fn missing_packages() -> Vec<&'static str> {
        let missing = [(find_jar().is_err(), PACKAGE), (find_java().is_err(), JAVA_PACKAGE)];
        missing.into_iter().filter_map(|(is_missing, package)| is_missing.then_some(package)).collect()
    }

    /// Starts an emulator.
    ///
    /// # Panics
    /// When it does not start, with its log; when it is not [`FirestoreEmulator::available`].
    pub fn start() -> Self {
        let found = find_jar().and_then(|jar| Ok((jar, find_java()?)));
        let (jar, java) = found.unwrap_or_else(|why| panic!("{why}"));
        let mut command: Vec<OsString> = vec![java.into()];
        command.extend(JVM_WORDS.map(Into::into));
        command.extend(["-cp".into(), jar.into(), CLASS.into(), "--host".into(), "127.0.0.1".into()]);
        let name = "the Firestore emulator";
        let recipe = Recipe { name, command, port_option: "--port", ending: Signal::KILL, is_ready };
        let own = Engine::start(recipe, folder::new("rnostr-firestore-", Medium::Disk, None));
        Self { host: own.address(), own: Some(own) }
    }

    /// The emulator that all tests of this process share: the one that `RNOSTR_TEST_FIRESTORE` names, or else one that is
    /// started now and ends with the process.
    ///
    /// # Panics
    /// As [`FirestoreEmulator::start`]; [`FirestoreEmulator::shared_available`] tells before.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<FirestoreEmulator> = OnceLock::new();
        SHARED.get_or_init(|| given(GIVEN).map_or_else(Self::start, |host| Self { host, own: None }))
    }

    /// Where it listens, as `FIRESTORE_EMULATOR_HOST` takes it: `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        self.host.clone()
    }

    /// The id of a project that no other test has, and that is empty.
    pub fn project(&self) -> String {
        crate::unique("test-")
    }

    /// The emulator's process id; none of one that is stopped or was not started here.
    pub fn pid(&self) -> Option<u32> {
        self.own.as_ref()?.pid()
    }

    /// SIGKILL.
    ///
    /// # Panics
    /// When it was not started here.
    pub fn kill(&mut self) {
        self.own().stop();
    }

    /// Starts it again, empty and at the same port, after [`FirestoreEmulator::kill`] if it runs.
    ///
    /// # Panics
    /// When it does not start, with its log; when it was not started here.
    pub fn restart(&mut self) {
        self.own().restart();
    }

    /// Stalls it: its process stops where it is, and the system goes on accepting connections for it.
    ///
    /// # Panics
    /// When it is stopped or was not started here.
    pub fn pause(&mut self) {
        self.own().pause();
    }

    /// Lets it go on after [`FirestoreEmulator::pause`].
    ///
    /// # Panics
    /// When it is stopped or was not started here.
    pub fn resume(&mut self) {
        self.own().resume();
    }

    fn own(&mut self) -> &mut Engine {
        self.own.as_mut().expect("an emulator that is given is not ours to stop")
    }
}

/// The emulator's jar, in the Google Cloud SDKs that this machine may have.
fn find_jar() -> Result<PathBuf, String> {
    let is_jar = |name: &str| {
        let is_ours = name.starts_with("cloud-firestore-emulator");
        is_ours && Path::new(name).extension().is_some_and(|extension| extension == "jar")
    };
    let jars =
        sdk_folders().into_iter().find_map(|sdk| programs::versions(&sdk.join(IN_SDK), is_jar).into_iter().next());
    jars.ok_or_else(|| {
        format!(
            "the Firestore emulator is not here: install the package {PACKAGE} of Google's repository \
             (deb https://packages.cloud.google.com/apt cloud-sdk main), or name an SDK's folder by CLOUDSDK_ROOT_DIR"
        )
    })
}

fn sdk_folders() -> Vec<PathBuf> {
    let mut folders: Vec<_> = std::env::var_os("CLOUDSDK_ROOT_DIR").into_iter().map(PathBuf::from).collect();
    folders.push("/usr/lib/google-cloud-sdk".into());
    // `gcloud` lies in the SDK's `bin`, wherever a link to it may be.
    let gcloud = programs::in_path("gcloud").and_then(|gcloud| fs::canonicalize(gcloud).ok());
    folders.extend(gcloud.iter().filter_map(|gcloud| gcloud.ancestors().nth(2)).map(Path::to_path_buf));
    folders
}

/// A Java that is new enough.
fn find_java() -> Result<PathBuf, String> {
    let home = std::env::var_os("JAVA_HOME").into_iter().map(|home| PathBuf::from(home).join("bin/java"));
    let homes = programs::versions(Path::new(JAVA_HOMES), |_| true).into_iter().map(|home| home.join("bin/java"));
    let mut programs = home.chain(programs::in_path("java")).chain(homes);
    programs.find(|java| java_major(java).is_some_and(|major| major >= JAVA_MAJOR_MIN)).ok_or_else(|| {
        format!("Java {JAVA_MAJOR_MIN} or newer, for the Firestore emulator, is not here: install {JAVA_PACKAGE}")
    })
}

/// The number in the first line of `java -version`, as `openjdk version "17.0.15"`.
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
        // It keeps the connection open.
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer)?;
        Ok(answer.starts_with("HTTP/1.1 200"))
    };
    get().unwrap_or(false)
}
