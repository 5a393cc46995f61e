//! Whether all of a file is as it was written.
//!
//! redb looks at the whole of a file only where the process before did not come to
//! its end. After a clean stop it trusts it, and a record that was damaged since would
//! be one that does not exist: its user would be signed out without a word. So the
//! checksums are verified at each start, and nothing of the file is changed by that:
//! what redb writes meanwhile stays in memory.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io;
use std::ops::Bound;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::backends::FileBackend;
use redb::{BackendError, Builder, DatabaseError, StorageBackend};

/// What is kept of what redb writes comes in pieces of this size.
const PIECE: usize = 4096;

/// Whether every page of the file carries its checksum. A file that was not closed is
/// recovered, in memory, and then verified.
///
/// # Errors
///
/// What redb says when it opens the file, [`DatabaseError::DatabaseAlreadyOpen`]
/// included: nobody writes to it meanwhile.
pub(super) fn is_intact(path: &Path, cache: usize) -> Result<bool, DatabaseError> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let copy = Copy {
        file: FileBackend::new(file)?,
        written: Mutex::default(),
    };
    if copy.file.len()? == 0 {
        // It would be taken for a new one.
        return Ok(false);
    }
    Builder::new()
        .set_cache_size(cache)
        .create_with_backend(copy)?
        .check_integrity()
}

/// A file that is read and locked, and whose changes stay in memory.
#[derive(Debug)]
struct Copy {
    file: FileBackend,
    written: Mutex<Written>,
}

#[derive(Debug, Default)]
struct Written {
    /// The length, where it is another one than that of the file.
    length: Option<u64>,
    /// Of the file, so much counts.
    kept: Option<u64>,
    pieces: BTreeMap<u64, Vec<u8>>,
}

impl Copy {
    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A piece as it is now; zeros where nothing was written.
    fn piece(&self, written: &Written, number: u64) -> io::Result<Vec<u8>> {
        if let Some(piece) = written.pieces.get(&number) {
            return Ok(piece.clone());
        }
        let start = number.saturating_mul(PIECE as u64);
        let kept = written.kept.map_or_else(|| self.file.len(), Ok)?;
        let there = usize::try_from(kept.saturating_sub(start)).unwrap_or(PIECE);
        let mut piece = vec![0; PIECE];
        if let Some(there) = piece.get_mut(..there.min(PIECE))
            && !there.is_empty()
        {
            self.file.read(start, there)?;
        }
        Ok(piece)
    }
}

/// The pieces that `length` bytes from `offset` on are in: the number of each, where
/// it begins within the piece, and how many bytes of it.
fn pieces(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let (mut at, mut left) = (offset, length);
    std::iter::from_fn(move || {
        if left == 0 {
            return None;
        }
        let (number, within) = (at / PIECE as u64, at % PIECE as u64);
        let within = usize::try_from(within).unwrap_or_default();
        let count = left.min(PIECE - within);
        (at, left) = (at + count as u64, left - count);
        Some((number, within, count))
    })
}

impl StorageBackend for Copy {
    fn len(&self) -> io::Result<u64> {
        let length = self.written().length;
        length.map_or_else(|| self.file.len(), Ok)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let written = self.written();
        let length = written.length.map_or_else(|| self.file.len(), Ok)?;
        if offset.saturating_add(out.len() as u64) > length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if written.length.is_none() && written.pieces.is_empty() {
            drop(written);
            return self.file.read(offset, out);
        }
        let mut rest = out;
        for (number, within, count) in pieces(offset, rest.len()) {
            let piece = self.piece(&written, number)?;
            let (now, later) = rest.split_at_mut(count);
            now.copy_from_slice(piece.get(within..within + count).unwrap_or_default());
            rest = later;
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let kept = self.file.len()?;
        let mut written = self.written();
        written.kept = Some(written.kept.unwrap_or(kept).min(length));
        written.length = Some(length);
        let last = length / PIECE as u64;
        let within = usize::try_from(length % PIECE as u64).unwrap_or_default();
        written.pieces.retain(|number, _| *number <= last);
        if let Some(piece) = written.pieces.get_mut(&last) {
            piece.get_mut(within..).unwrap_or_default().fill(0);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut written = self.written();
        let mut rest = data;
        for (number, within, count) in pieces(offset, data.len()) {
            let mut piece = self.piece(&written, number)?;
            let (now, later) = rest.split_at(count);
            if let Some(place) = piece.get_mut(within..within + count) {
                place.copy_from_slice(now);
            }
            written.pieces.insert(number, piece);
            rest = later;
        }
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_the_file_stays_as_it_is() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let before: Vec<u8> = (0..10_000u32).map(|n| n as u8).collect();
        file.write_all(&before).unwrap();
        let copy = Copy {
            file: FileBackend::new(file.reopen().unwrap()).unwrap(),
            written: Mutex::default(),
        };
        let mut model = before.clone();
        let same = |model: &[u8]| {
            let mut all = vec![0; model.len()];
            copy.read(0, &mut all).unwrap();
            assert!(all == model && copy.len().unwrap() == model.len() as u64);
            assert!(copy.read(1, &mut all).is_err());
        };
        same(&model);
        for (offset, length) in [(0, 10), (4090, 12), (4096, 4096), (1, 9_999), (9_999, 1)] {
            let data = vec![length as u8; length];
            copy.write(offset as u64, &data).unwrap();
            model[offset..offset + length].copy_from_slice(&data);
            same(&model);
        }
        for length in [12_345, 9_000, 20_000, 4_096, 8_192, 10] {
            copy.set_len(length as u64).unwrap();
            model.resize(length, 0);
            same(&model);
        }
        assert!(std::fs::read(file.path()).unwrap() == before);
    }
}
