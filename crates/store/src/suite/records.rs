//! Records of the relay itself.

use super::world::World;
use crate::{RECORD_BYTES_MAX, RecordName, StoredRecord};

const NAME: RecordName = RecordName::Management;

pub async fn a_record_is_written_by_those_who_know_its_version(world: &mut World) {
    let put = async |known, value: &[u8]| world.store.put_record(NAME, known, value.to_vec()).await.expect("it works");
    let get = async |known| world.store.record(NAME, known).await.expect("a store that works");
    assert_eq!(get(0).await, None, "it was never written");
    assert!(!put(1, b"early").await, "nobody knows a version that is not there");
    assert!(put(0, b"one").await);
    assert!(!put(0, b"two").await, "the version is another one by now");
    assert_eq!(get(0).await, Some(StoredRecord { version: 1, value: b"one".to_vec() }));
    assert_eq!(get(1).await, None, "it is known");
    assert!(put(1, b"").await);
    assert_eq!(get(1).await, Some(StoredRecord { version: 2, value: Vec::new() }));
    assert_eq!(get(7).await.map(|record| record.version), Some(2), "a version that the store does not have");
}

pub async fn a_record_may_be_large(world: &mut World) {
    let value: Vec<u8> = (0..RECORD_BYTES_MAX).map(|n| n as u8).collect();
    assert!(world.store.put_record(NAME, 0, value.clone()).await.expect("a store that works"));
    let record = world.store.record(NAME, 0).await.expect("a store that works").expect("a record");
    assert_eq!((record.version, record.value == value), (1, true));
}
