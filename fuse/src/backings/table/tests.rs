use super::*;

const BOUNDS: PassthroughBounds =
    PassthroughBounds { held_bytes: 40_000, idle_bytes: 25_000, total_bytes: 60_000 };

const FILE: InodeNumber = InodeNumber(7);

fn table() -> Table<&'static str, u32> {
    Table::new(BOUNDS)
}

/// Opens and closes a file of this size, which leaves its backing file idle.
fn use_once(table: &mut Table<&'static str, u32>, inode: InodeNumber, size: u64) {
    assert_eq!(table.open(inode, size, 0), Opened::First(0));
    table.built(inode, "built");
    table.release(inode);
}

fn is_empty(table: &Table<&'static str, u32>) -> bool {
    table.files.is_empty()
        && table.idle.is_empty()
        && (table.idle_bytes, table.total_bytes, table.held_bytes, table.waiting) == (0, 0, 0, 0)
}

#[test]
fn who_opens_at_the_same_time_gets_the_same_backing_file() {
    let mut table = table();
    assert_eq!(table.open(FILE, 10, 1), Opened::First(1));
    assert_eq!(table.open(FILE, 10, 2), Opened::Waits);
    assert_eq!(table.open(FILE, 10, 3), Opened::Waits);
    let (backing, others) = table.built(FILE, "backing");
    assert_eq!((*backing, others), ("backing", vec![2, 3]));
    assert_eq!(table.open(FILE, 10, 4), Opened::Passed(4, backing));
    (0..4).for_each(|_| table.release(FILE));
    assert_eq!(table.idle_bytes, 10);
    table.stop();
    assert_eq!(table.take_left().len(), 1);
    assert!(is_empty(&table));
}

#[test]
fn a_file_that_is_open_plainly_stays_so_until_the_last_one_closes_it() {
    let mut table = table();
    assert_eq!(table.open(FILE, 10, 1), Opened::First(1));
    assert_eq!(table.open(FILE, 10, 2), Opened::Waits);
    assert_eq!(table.failed(FILE), [2]);
    assert_eq!(table.open(FILE, 10, 3), Opened::Plainly(3));
    for _ in 0..3 {
        assert_eq!(table.open(FILE, 10, 4), Opened::Plainly(4));
        table.release(FILE);
        table.release(FILE);
    }
    assert_eq!(table.open(FILE, 10, 5), Opened::First(5));
    table.failed(FILE);
    table.release(FILE);
    assert!(is_empty(&table));
}

#[test]
fn an_idle_backing_file_is_used_again_and_gone_once_it_is_forgotten() {
    let mut table = table();
    use_once(&mut table, FILE, 10);
    assert!(matches!(table.open(FILE, 10, 1), Opened::Passed(1, _)));
    table.forget(FILE);
    assert!(table.take_left().is_empty(), "it is open");
    table.release(FILE);
    table.forget(FILE);
    assert_eq!(table.take_left().len(), 1);
    assert!(is_empty(&table));
    assert_eq!(table.open(FILE, 10, 1), Opened::First(1));
}

#[test]
fn of_the_idle_ones_the_oldest_goes_first() {
    let mut table = table();
    let [first, second, third] = [1, 2, 3].map(InodeNumber);
    use_once(&mut table, first, 10_000);
    use_once(&mut table, second, 10_000);
    // It is the youngest now.
    assert!(matches!(table.open(first, 10_000, 1), Opened::Passed(..)));
    table.release(first);
    use_once(&mut table, third, 10_000);
    assert_eq!(table.take_left().len(), 1);
    assert!(!table.files.contains_key(&second));
    assert_eq!((table.idle_bytes, table.total_bytes), (20_000, 20_000));
}

#[test]
fn what_is_open_takes_the_place_of_what_is_idle_and_the_rest_is_opened_plainly() {
    let mut table = table();
    use_once(&mut table, InodeNumber(1), 20_000);
    for number in 2..5 {
        assert_eq!(table.open(InodeNumber(number), 20_000, 0), Opened::First(0));
        table.built(InodeNumber(number), "built");
    }
    assert_eq!((table.take_left().len(), table.total_bytes), (1, 60_000));
    assert_eq!(table.open(InodeNumber(5), 1, 9), Opened::Plainly(9), "no room at all");
}

#[test]
fn no_more_is_held_in_place_than_may_be() {
    let mut table = table();
    for number in 0..9 {
        assert_eq!(table.open(InodeNumber(number), 1, 0), Opened::First(0), "{number}");
    }
    assert_eq!(table.open(FILE, 1, 1), Opened::Waits);
    assert_eq!(table.open(InodeNumber(9), 1, 1), Opened::Plainly(1), "a page each");
    table.failed(InodeNumber(0));
    assert_eq!(table.open(InodeNumber(10), 1, 1), Opened::First(1));
}

#[test]
fn what_is_empty_or_large_or_comes_after_the_end_is_opened_plainly() {
    let huge = PassthroughBounds::of(1 << 40);
    let mut table: Table<&str, u32> = Table::new(huge);
    assert_eq!(table.open(InodeNumber(1), 0, 1), Opened::Plainly(1));
    assert_eq!(table.open(InodeNumber(2), PASSED_BYTES_MAX + 1, 1), Opened::Plainly(1));
    assert_eq!(table.open(InodeNumber(3), PASSED_BYTES_MAX, 1), Opened::First(1));
    table.built(InodeNumber(3), "built");
    table.stop();
    assert_eq!(table.open(InodeNumber(4), 1, 1), Opened::Plainly(1));
    assert!(matches!(table.open(InodeNumber(3), 1, 1), Opened::Passed(..)), "the kernel wants it");
}

#[test]
fn a_close_that_nobody_opened_changes_nothing() {
    let mut table = table();
    table.release(FILE);
    use_once(&mut table, FILE, 10);
    table.release(FILE);
    assert_eq!(table.idle_bytes, 10);
}
