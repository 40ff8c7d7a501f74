//! Raw directory entries, as `getdents64(2)` gives them.

/// One entry of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Inode number as the directory has it (of a mount point: that of the directory below).
    pub ino: u64,
    /// Position behind this entry: what `lseek(2)` on the directory takes to go on after it.
    pub next: u64,
    /// `DT_*`, perhaps `DT_UNKNOWN`.
    pub kind: u8,
    /// The name, without the NUL byte.
    pub name: &'a [u8],
    /// How many bytes of the buffer the entry takes.
    pub len: usize,
}

/// The entries in a buffer that `getdents64(2)` has filled.
pub fn entries(mut buffer: &[u8]) -> impl Iterator<Item = Entry<'_>> {
    std::iter::from_fn(move || {
        // struct linux_dirent64: u64 ino, u64 offset, u16 record length, u8 type, name, NUL
        let header = buffer.get(..19)?;
        let number =
            |at: usize| u64::from_ne_bytes(header[at..at + 8].try_into().expect("8 bytes"));
        let len = usize::from(u16::from_ne_bytes([header[16], header[17]]));
        let record = buffer.get(..len.max(19))?;
        buffer = &buffer[record.len()..];
        let name = &record[19..];
        let end = name
            .iter()
            .position(|&byte| byte == 0)
            .unwrap_or(name.len());
        Some(Entry {
            ino: number(0),
            next: number(8),
            kind: header[18],
            name: &name[..end],
            len: record.len(),
        })
    })
}
