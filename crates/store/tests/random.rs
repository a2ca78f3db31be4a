//! Random calls: the embedded store answers like the one in memory.
#![allow(clippy::expect_used, reason = "a test")]

use std::sync::Arc;

use nostr_store::{
    Store,
    embedded::{Durability, Embedded, Options},
    memory::Memory,
    suite::random::{Pair, strategy::step},
};
use proptest::{collection::vec, prelude::*};

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn the_embedded_store_answers_as_the_oracle(steps in vec(step(), 1..50)) {
        let directory = tempfile::tempdir().expect("a directory");
        // The test compares answers and cuts no power.
        let options = Options { durability: Durability::Interval { ms: 1_000 }, ..Options::default() };
        let open = async || {
            // So few ids fit into memory that the store writes and reads them all the time.
            let store = Embedded::open_that_leaves_rows(directory.path(), options).expect("a store");
            Arc::new(store) as Arc<dyn Store>
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async { Pair::new(Arc::new(Memory::new()), open).await.run(&steps).await });
    }
}
