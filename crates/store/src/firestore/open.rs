//! Opening the store: the connection, the first documents of a new database, and a check that its indexes exist.

use std::sync::{Arc, atomic::AtomicU64};

use nostr_extensions::RouteHasher;
use tokio::sync::{Semaphore, watch};

use super::{
    Firestore, Inner, Options,
    documents::{
        names::{Collection, Names, field},
        query::{self, Under},
    },
    history::History,
    log::{Tail, locations::Locations, notifications},
    random::Random,
    read::{load_members::Acted, lookups::StatsCache},
    wire::{
        client::Client,
        clock::{Micros, micros, through},
        connect,
        fail::Fail,
        value::{self, Fields, ReadFields as _, Version},
    },
    write::epochs::{self, Epochs},
};
use crate::{OpenError, StoreError, decide::hiding::Hiding, random};

/// The layout of documents that this version writes.
const LAYOUT: u64 = 1;
/// Most queries of archive reads under way, so that calls are left for followers and writers.
const SCANS_MAX: usize = 48;
/// Most batches that are saved at one time.
const SAVES_MAX: usize = 16;

/// The document that the first process makes.
struct Layout {
    route_hasher: RouteHasher,
    secret: [u8; 32],
    written_at: Micros,
    read_at: Micros,
}

async fn layout(client: &Client, names: &Names) -> Result<Result<Layout, OpenError>, Fail> {
    let name = names.meta("layout");
    // The second round reads the document of a process that was faster.
    for _ in 0..2 {
        let got = client.get(vec![name.clone()], None).await?;
        if let Some(document) = got.get(&name) {
            let version = document.secs("version").ok_or(Fail::Damaged("the layout"))?;
            if version > LAYOUT {
                return Ok(Err(OpenError::Refused(format!(
                    "Firestore holds documents of layout {version}, which a newer rnostr wrote; this one knows {LAYOUT}"
                ))));
            }
            let key =
                document.bytes("router").and_then(|key| key.try_into().ok()).ok_or(Fail::Damaged("the layout"))?;
            let written_at = document.update_time.map(micros).ok_or(Fail::Damaged("the layout"))?;
            let (route_hasher, secret) = (RouteHasher::new(key), random::secret_of(key));
            return Ok(Ok(Layout { route_hasher, secret, written_at, read_at: got.read_at }));
        }
        let key = random::route_key().map_err(|error| Fail::Unavailable(format!("no randomness: {error}")))?;
        let fields = Fields::default().number("version", LAYOUT).bytes("router", key.to_vec());
        match client.commit(vec![value::put(name.clone(), fields, Version::Absent)], None).await {
            Ok(_) | Err(Fail::Conflict) => {}
            Err(fail) => return Err(fail),
        }
    }
    Err(Fail::Damaged("a layout that is there and is not"))
}

impl Firestore {
    /// Opens the store, and makes its first documents in an empty database. Nothing is tried twice.
    ///
    /// # Errors
    /// [`OpenError`], in words for the operator: wrong options, no credentials, no answer, no rights, or a layout of a
    /// newer version.
    pub async fn open(options: Options) -> Result<Self, OpenError> {
        options.check()?;
        let client = connect::connect(&options).await?;
        let names = Names::new(client.root(), &options.prefix);
        let failed = |fail: Fail| {
            let (project, database) = (&options.project_id, &options.database_id);
            let why = format!(
                "the database {database} of project {project} does not open: {}",
                StoreError::from(fail.clone())
            );
            match fail {
                Fail::Unavailable(_) | Fail::Late(_) | Fail::Conflict => OpenError::Unreachable(why),
                _ => OpenError::Refused(why),
            }
        };
        let random = Random::default();
        // Commits that were acknowledged before lie before the head that is read next.
        client.settle().await;
        let Layout { route_hasher, secret, written_at, read_at } = layout(&client, &names).await.map_err(failed)??;
        let inner = Arc::new(Inner {
            client,
            names,
            route_hasher,
            secret,
            head: AtomicU64::new(through(read_at)),
            notifications: watch::Sender::new(0),
            saves: Semaphore::new(SAVES_MAX),
            scans: Semaphore::new(SCANS_MAX),
            hiding: Hiding::default(),
            history: History::new(written_at),
            epochs: Epochs::default(),
            acted: Acted::default(),
            locations: Locations::default(),
            tail: Tail::default(),
            random,
            stats: StatsCache::default(),
            options: options.clone(),
        });
        inner.learn_vanished().await.map_err(failed)?;
        inner.try_queries().await.map_err(failed)?;
        let tasks = [
            tokio::spawn(notifications::listen(Arc::downgrade(&inner))),
            tokio::spawn(epochs::write_epochs(Arc::downgrade(&inner))),
        ];
        Ok(Self { inner, tasks })
    }
}

impl Inner {
    /// Runs one tiny query for each index, so that a database without them is noticed at once.
    pub(crate) async fn try_queries(&self) -> Result<(), Fail> {
        let under = Under { numbers: &[0, 1], since: Some(0), until: Some(0), behind: None, limit: 1 };
        let asked = [
            query::events_under(&self.names, under),
            query::expired_events(&self.names, 0, 1),
            query::log_newest(&self.names, 1),
            query::log_before(&self.names, 0, 1),
            query::memberships(&self.names, Collection::Groups, &[0], None, 1),
            query::memberships(&self.names, Collection::Members, &[0], None, 1),
            query::received_since(&self.names, 0, None, 1),
            query::expired_once(&self.names, 0, 1),
            query::received_under(&self.names, &[0, 1], 0, None, 1),
            query::every_group(&self.names, None, &[field::GROUP], 1),
        ];
        futures_util::future::try_join_all(asked.map(|asked| self.client.query(asked))).await.map(drop)
    }
}
