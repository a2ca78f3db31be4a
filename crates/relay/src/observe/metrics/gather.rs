//! The gauges that are set when somebody asks for the metrics: what is open, what waits, what is stored, and what the
//! process takes.

use metrics::{Counter, Gauge};
use metrics_process::collector;
use nostr_store::Stats;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{catalogue as c, families::ByWord, recorder::Recorder};
use crate::{app::App, config::StorageBackend};

/// The gauges, made once.
pub(crate) struct Gauges {
    subscriptions: Gauge,
    log_cursor: Gauge,
    log_head: Gauge,
    ready: Gauge,
    follow_lag: Gauge,
    queues: ByWord<Gauge>,
    client_memory: Gauge,
    client_memory_max: Gauge,
    store_events: Gauge,
    store_groups: Gauge,
    key_package_stock: Gauge,
    store_bytes: Gauge,
    store_bytes_max: Gauge,
    documents_read: Counter,
    cache_hits: ByWord<Counter>,
    cache_misses: ByWord<Counter>,
    tasks: Gauge,
    tasks_queued: Gauge,
    backends: ByWord<Gauge>,
    cpu: Gauge,
    resident: Gauge,
    virtual_bytes: Gauge,
    open_fds: Gauge,
    max_fds: Gauge,
    threads: Gauge,
    start_time: Gauge,
    /// Wakes [`super::sizes`] at each scrape, and at each look of the console.
    pub(crate) scraped: Notify,
    /// The sizes that the store told last.
    sizes: Mutex<Option<Stats>>,
}

impl Gauges {
    pub(super) fn new(recorder: &Recorder) -> Self {
        let gauge = |metric| recorder.gauge(metric, &[]);
        let words = |metric| ByWord::new(metric, |labels| recorder.gauge(metric, labels));
        Self {
            subscriptions: gauge(&c::SUBSCRIPTIONS),
            log_cursor: gauge(&c::LOG_CURSOR),
            log_head: gauge(&c::LOG_HEAD),
            ready: gauge(&c::READY),
            follow_lag: gauge(&c::FOLLOW_LAG),
            queues: words(&c::QUEUE_EVENTS),
            client_memory: gauge(&c::CLIENT_MEMORY),
            client_memory_max: gauge(&c::CLIENT_MEMORY_MAX),
            store_events: gauge(&c::STORE_EVENTS),
            store_groups: gauge(&c::STORE_GROUPS),
            key_package_stock: gauge(&c::KEY_PACKAGE_STOCK),
            store_bytes: gauge(&c::STORE_BYTES),
            store_bytes_max: gauge(&c::STORE_BYTES_MAX),
            documents_read: recorder.counter(&c::DOCUMENTS_READ, &[]),
            cache_hits: ByWord::counters(recorder, &c::CACHE_HITS),
            cache_misses: ByWord::counters(recorder, &c::CACHE_MISSES),
            tasks: gauge(&c::TASKS),
            tasks_queued: gauge(&c::BUSY_TASKS),
            backends: words(&c::BACKEND),
            cpu: gauge(&c::CPU),
            resident: gauge(&c::RESIDENT),
            virtual_bytes: gauge(&c::VIRTUAL),
            open_fds: gauge(&c::OPEN_FDS),
            max_fds: gauge(&c::MAX_FDS),
            threads: gauge(&c::THREADS),
            start_time: gauge(&c::START_TIME),
            scraped: Notify::new(),
            sizes: Mutex::default(),
        }
    }

    /// Sets the gauges of this relay. The store is asked for nothing: the sizes are those that it told last.
    pub(crate) fn gather(&self, app: &App) {
        self.subscriptions.set(app.live.subscriptions() as f64);
        self.log_cursor.set(app.live.cursor() as f64);
        self.log_head.set(app.store.head() as f64);
        self.ready.set(f64::from(u8::from(app.not_ready().is_none())));
        if let Some(lag) = app.delivery.lag() {
            self.follow_lag.set(lag.as_secs_f64());
        }
        let waiting = [
            ("writer", app.writer.waiting()),
            ("delivery", app.live.waiting()),
            ("keypackage_requests", app.low_stock.waiting()),
        ];
        waiting.into_iter().for_each(|(queue, events)| set(&self.queues, queue, events));
        self.client_memory.set(app.memory_used() as f64);
        self.client_memory_max.set(app.config.server.memory_bytes_max as f64);
        let backend = match app.config.mls_gateway.storage_backend {
            StorageBackend::Embedded => "embedded",
            StorageBackend::Postgres => "postgres",
            StorageBackend::Firestore => "firestore",
        };
        set(&self.backends, backend, 1);
        let runtime = tokio::runtime::Handle::current();
        self.tasks.set(runtime.metrics().num_alive_tasks() as f64);
        self.tasks_queued.set(runtime.metrics().global_queue_depth() as f64);
        for (cache, lookups) in [("groups", &app.groups.lookups), ("key_packages", &app.described.lookups)] {
            let (hits, misses) = lookups.numbers();
            self.cache_hits.raise(cache, hits);
            self.cache_misses.raise(cache, misses);
        }
        if let Some(documents) = app.store.documents_read() {
            self.documents_read.absolute(documents);
        }
        self.gather_process();
        self.scraped.notify_one();
    }

    fn gather_process(&self) {
        let process = collector::collect();
        let numbers = [
            (&self.resident, process.resident_memory_bytes),
            (&self.virtual_bytes, process.virtual_memory_bytes),
            (&self.open_fds, process.open_fds),
            (&self.max_fds, process.max_fds),
            (&self.threads, process.threads),
            (&self.start_time, process.start_time_seconds),
        ];
        for (gauge, number) in numbers {
            number.into_iter().for_each(|number| gauge.set(number as f64));
        }
        process.cpu_seconds_total.into_iter().for_each(|secs| self.cpu.set(secs));
    }

    /// The sizes that the store told last; `None` before the first time.
    pub(crate) fn sizes(&self) -> Option<Stats> {
        *self.sizes.lock()
    }

    /// Sets the gauges of the store's sizes.
    pub(super) fn set_sizes(&self, sizes: Stats) {
        *self.sizes.lock() = Some(sizes);
        let Stats { events, groups, key_packages, bytes_used, bytes_max } = sizes;
        self.store_events.set(events as f64);
        self.store_groups.set(groups as f64);
        self.key_package_stock.set(key_packages.map_or(-1.0, |count| count as f64));
        self.store_bytes.set(bytes_used as f64);
        self.store_bytes_max.set(bytes_max as f64);
    }
}

fn set(family: &ByWord<Gauge>, word: &str, value: usize) {
    if let Some(gauge) = family.of(word) {
        gauge.set(value as f64);
    }
}
