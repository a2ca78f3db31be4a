use super::*;

/// A connection of a payer, with bytes beside those of every connection.
fn open(memory: &Arc<Memory>, payer: PayerHash, bytes: usize) -> Holding {
    let holding = memory.open(payer);
    holding.grow(bytes);
    holding
}

fn is_shed(holding: &Holding) -> bool {
    holding.shed().is_cancelled()
}

#[test]
fn the_largest_and_newest_connection_ends_first() {
    let memory = Memory::new(10 * CONNECTION_BYTES);
    let [small, large, larger] = [1, 2, 3].map(|payer| memory.open(payer));
    large.grow(3 * CONNECTION_BYTES);
    larger.grow(3 * CONNECTION_BYTES);
    assert!([&small, &large, &larger].into_iter().all(|holding| !is_shed(holding)), "all fit");
    small.grow(CONNECTION_BYTES + 1);
    assert!(is_shed(&larger) && !is_shed(&large) && !is_shed(&small), "of two equal ones the newer ends");
    small.grow(CONNECTION_BYTES);
    assert!(!is_shed(&large), "the connection that ends is about to give enough back");
    larger.shrink(3 * CONNECTION_BYTES);
    large.grow(3 * CONNECTION_BYTES);
    assert!(is_shed(&large), "the bytes that it gave back are there once");
}

/// Many small connections of one payer end before a larger one of another.
#[test]
fn the_connections_of_the_largest_payer_end_first() {
    let memory = Memory::new(1_100 * CONNECTION_BYTES);
    let honest = open(&memory, 1, 40 * CONNECTION_BYTES);
    let crowd: Vec<Holding> = (0..1_059).map(|_| memory.open(2)).collect();
    assert!(crowd.iter().all(|holding| !is_shed(holding)), "all fit");
    let last = memory.open(2);
    assert!(is_shed(&last) && !is_shed(&honest));
    let ended = crowd.iter().filter(|holding| is_shed(holding)).count();
    assert_eq!(ended, 1_100 / FREED_PARTS + 1, "a part is free");
    let resident = memory.open(2);
    resident.change_payer(3);
    resident.grow(30 * CONNECTION_BYTES);
    assert!(!is_shed(&resident) && !is_shed(&honest), "a connection counts for the payer that it has now");
    assert_eq!(memory.connections.lock().payers.len(), 3);
}

/// The relay looks at one connection for each 256 bytes by which memory grows above its bound, while the
/// connections that end are still there and after they are gone.
#[test]
fn a_search_is_paid_for_by_growth() {
    let memory = Memory::new(1_000 * CONNECTION_BYTES);
    let mut open: Vec<Holding> = (0..1_000).map(|n| memory.open(n % 100)).collect();
    let mut grown = 0;
    for round in 0..20_000 {
        open[round % 1_000].grow(1_000);
        grown += 1_000;
        if round % 1_000 == 999 {
            open.retain(|holding| !is_shed(holding));
            while open.len() < 1_000 {
                open.push(memory.open(round as u64));
                grown += CONNECTION_BYTES;
            }
        }
    }
    let (looked_at, allowed) = (memory.looked_at.load(Ordering::Relaxed), grown / (CONNECTION_BYTES / FREED_PARTS));
    assert!(looked_at > 1_000 && looked_at < 2 * allowed, "{looked_at} connections for {grown} bytes");
}

#[test]
fn bytes_are_given_back() {
    let memory = Memory::new(usize::MAX);
    let (first, second) = (memory.open(1), memory.open(2));
    first.grow(1_000);
    first.shrink(400);
    let mut held = first.hold(7);
    held.set(10);
    held.set(3);
    assert_eq!(memory.used(), 2 * CONNECTION_BYTES + 603);
    drop(held);
    assert_eq!(memory.used(), 2 * CONNECTION_BYTES + 600);
    drop(first);
    assert_eq!(memory.used(), CONNECTION_BYTES);
    drop(second);
    let connections = memory.connections.lock();
    assert_eq!((memory.used(), connections.open.len(), connections.payers.len()), (0, 0, 0));
}

/// A payer's unfinished messages have a bound of their own, whatever else is free.
#[test]
fn unfinished_messages_of_one_payer_are_bounded() {
    let memory = Memory::new(usize::MAX);
    let of_one: Vec<Holding> = (0..4).map(|_| memory.open(1)).collect();
    let other = memory.open(2);
    assert!(of_one.iter().all(|holding| holding.note_unfinished(UNFINISHED_BYTES_MAX / 4)));
    let more = UNFINISHED_BYTES_MAX / 4 + UNFINISHED_STEP_BYTES;
    assert!(!of_one[0].note_unfinished(more) && other.note_unfinished(more));
    of_one[1].change_payer(3);
    assert!(of_one[2].note_unfinished(more), "the bytes go with their connection");
    drop(of_one);
    assert_eq!(memory.connections.lock().payers.len(), 1);
    other.change_payer(1);
    let of_payer = other.payer().expect("it is open").unfinished.load(Ordering::Relaxed);
    assert_eq!(of_payer, more, "nothing is left of those that are gone");
}

/// A connection that ended gives back all that was expected of it, also if it grew meanwhile.
#[test]
fn nothing_is_expected_of_connections_that_are_gone() {
    let memory = Memory::new(10 * CONNECTION_BYTES);
    let first = open(&memory, 1, 4 * CONNECTION_BYTES);
    let second = open(&memory, 2, 6 * CONNECTION_BYTES);
    assert!(is_shed(&second));
    second.grow(100);
    second.shrink(5 * CONNECTION_BYTES);
    second.note_kept(5_000);
    drop(second);
    assert_eq!((memory.ending.load(Ordering::Relaxed), memory.used()), (0, first.bytes()));
}
