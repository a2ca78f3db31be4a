//! The bytes of one page of LMDB's file.
//!
//! Source: `mdb.c` of LMDB 0.9.70 (`MDB_page`, `MDB_node`, `MDB_db`, `MDB_meta`), data version 1, with numbers in the
//! order of the machine.

/// Bytes before the first pointer of a page.
pub(super) const PAGE_HEADER: usize = 16;
/// Bytes before the key of a node.
const NODE_HEADER: usize = 8;
/// Bytes of a table's record.
pub(super) const TREE_BYTES: usize = 48;
/// Bytes of a meta page that are read.
pub(super) const META_BYTES: usize = PAGE_HEADER + 136;
const MAGIC: u32 = 0xBEEF_C0DE;
const DATA_VERSION: u32 = 1;
/// Flag of the free list's tree: its keys are numbers.
const INTEGER_KEYS: u16 = 8;
/// The root of an empty tree.
pub(super) const NO_PAGE: u64 = u64::MAX;

const BRANCH: u16 = 1;
const LEAF: u16 = 2;
const OVERFLOW: u16 = 4;
const META: u16 = 8;
/// Flag of a node whose value lies in pages of its own.
const BIG: u16 = 1;
/// Flag of a node whose value is a table's record.
const TABLE: u16 = 2;

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// A table's record: its tree and its sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tree {
    pub(super) flags: u16,
    pub(super) depth: u16,
    pub(super) branches: u64,
    pub(super) leaves: u64,
    pub(super) overflows: u64,
    pub(super) entries: u64,
    pub(super) root: u64,
}

impl Tree {
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            flags: u16_at(bytes, 4)?,
            depth: u16_at(bytes, 6)?,
            branches: u64_at(bytes, 8)?,
            leaves: u64_at(bytes, 16)?,
            overflows: u64_at(bytes, 24)?,
            entries: u64_at(bytes, 32)?,
            root: u64_at(bytes, 40)?,
        })
    }
}

/// A meta page: the roots of one transaction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meta {
    pub(super) page_bytes: usize,
    pub(super) free: Tree,
    pub(super) main: Tree,
    pub(super) last_page: u64,
    pub(super) transaction: u64,
}

impl Meta {
    /// Reads the meta page of this number; `None` where it is none.
    pub(super) fn read(page: &[u8], number: u64) -> Option<Self> {
        let meta = page.get(PAGE_HEADER..)?;
        let page_bytes = u32_at(meta, 24)? as usize;
        let free = Tree::read(meta.get(24..)?)?;
        let fits = u64_at(page, 0)? == number
            && u16_at(page, 10)? == META
            && u32_at(meta, 0)? == MAGIC
            && u32_at(meta, 4)? == DATA_VERSION
            && page_bytes.is_power_of_two()
            && (512..=1 << 16).contains(&page_bytes)
            && free.flags == INTEGER_KEYS;
        fits.then_some(())?;
        let main = Tree::read(meta.get(24 + TREE_BYTES..)?)?;
        let (last_page, transaction) = (u64_at(meta, 24 + 2 * TREE_BYTES)?, u64_at(meta, 32 + 2 * TREE_BYTES)?);
        Some(Self { page_bytes, free, main, last_page, transaction })
    }
}

/// The value of a leaf's node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Here(&'a [u8]),
    /// So many bytes that begin in the page of this number.
    Elsewhere(u64, usize),
    Table(Tree),
}

/// The content of a page of a tree: keys, each with a page or a value.
#[derive(Debug)]
pub(super) enum Content<'a> {
    Branch(Vec<(&'a [u8], u64)>),
    Leaf(Vec<(&'a [u8], Value<'a>)>),
}

/// Reads the page of this number of a tree.
///
/// # Errors
/// The fault, in words behind "page 7: ".
pub(super) fn content(page: &[u8], number: u64) -> Result<Content<'_>, &'static str> {
    let header = || Some((u64_at(page, 0)?, u16_at(page, 10)?, u16_at(page, 12)?, u16_at(page, 14)?));
    let (own, flags, lower, upper) = header().ok_or("it is cut short")?;
    if own != number {
        return Err("it has another page's number");
    }
    let (lower, upper) = (usize::from(lower), usize::from(upper));
    // The end of a page of 64 KiB does not fit into its field.
    let upper = if upper == 0 && page.len() == 1 << 16 { page.len() } else { upper };
    if lower < PAGE_HEADER || !lower.is_multiple_of(2) || upper < lower || upper > page.len() {
        return Err("its bounds are not those of a page");
    }
    let (mut branch, mut leaf, mut bytes) = (Vec::new(), Vec::new(), 0);
    for pointer in (PAGE_HEADER..lower).step_by(2) {
        let at = usize::from(u16_at(page, pointer).unwrap_or_default());
        if at < upper || !at.is_multiple_of(2) {
            return Err("a pointer leads out of its nodes");
        }
        let node = page.get(at..).unwrap_or_default();
        let (key, len) = match flags {
            BRANCH => {
                let (key, child) = branch_node(node).ok_or("a node does not read")?;
                branch.push((key, child));
                (key, 0)
            }
            LEAF => {
                let (key, value) = leaf_node(node).ok_or("a node does not read")?;
                leaf.push((key, value));
                (
                    key,
                    match value {
                        Value::Here(value) => value.len(),
                        Value::Elsewhere(..) => 8,
                        Value::Table(_) => TREE_BYTES,
                    },
                )
            }
            _ => return Err("it is no page of a tree"),
        };
        bytes += (NODE_HEADER + key.len() + len).next_multiple_of(2);
    }
    // Nodes lie side by side, so that each wrong length of one shows.
    if bytes != page.len() - upper {
        return Err("its nodes do not fill their place");
    }
    match flags {
        BRANCH if branch.len() < 2 => Err("it leads to fewer than two pages"),
        BRANCH => Ok(Content::Branch(branch)),
        LEAF if leaf.is_empty() => Err("it is empty"),
        LEAF => Ok(Content::Leaf(leaf)),
        _ => Err("it is no page of a tree"),
    }
}

fn branch_node(node: &[u8]) -> Option<(&[u8], u64)> {
    let (low, high, flags) = (u16_at(node, 0)?, u16_at(node, 2)?, u16_at(node, 4)?);
    let child = u64::from(low) | u64::from(high) << 16 | u64::from(flags) << 32;
    let key = node.get(NODE_HEADER..)?.get(..usize::from(u16_at(node, 6)?))?;
    Some((key, child))
}

fn leaf_node(node: &[u8]) -> Option<(&[u8], Value<'_>)> {
    let (low, high, flags) = (u16_at(node, 0)?, u16_at(node, 2)?, u16_at(node, 4)?);
    let bytes = usize::from(low) | usize::from(high) << 16;
    let (key, rest) = node.get(NODE_HEADER..)?.split_at_checked(usize::from(u16_at(node, 6)?))?;
    let value = match flags {
        0 => Value::Here(rest.get(..bytes)?),
        BIG => Value::Elsewhere(u64_at(rest, 0)?, bytes),
        TABLE if bytes == TREE_BYTES => Value::Table(Tree::read(rest.get(..bytes)?)?),
        _ => return None,
    };
    Some((key, value))
}

/// Whether this is the first of so many pages with a long value.
pub(super) fn is_overflow(page: &[u8], number: u64, pages: u64) -> bool {
    u64_at(page, 0) == Some(number)
        && u16_at(page, 10) == Some(OVERFLOW)
        && u32_at(page, 12).map(u64::from) == Some(pages)
}
