//! The slots of a subject as a file: a line of JSON each, so that whoever doubts a figure can compute it.
//!
//! `[slot, due, [fates], [[bucket, count], ..]]`; slots in which nothing was due are left out. The last line is
//! `{"slots": N, "crc32c": SUM}`, of the bytes before it and of N as text: a file without it was cut off.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use super::board::Cell;

#[derive(Debug, Serialize, Deserialize)]
struct Line(usize, u64, Vec<u64>, Vec<(usize, u64)>);

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Last {
    slots: usize,
    crc32c: u32,
}

/// Most slots of a file: a board has fewer.
const SLOTS_MAX: usize = 1 << 26;

/// Writes cells.
///
/// # Errors
/// Those of `out`.
pub fn write(cells: &[Cell], mut out: impl Write) -> io::Result<()> {
    let mut sum = 0;
    for (slot, cell) in cells.iter().enumerate().filter(|(_, cell)| **cell != Cell::default()) {
        let buckets = cell.buckets.iter().copied().enumerate().filter(|(_, n)| *n > 0).collect();
        let mut line = serde_json::to_vec(&Line(slot, cell.due, cell.fates.to_vec(), buckets))?;
        line.push(b'\n');
        sum = crc32c::crc32c_append(sum, &line);
        out.write_all(&line)?;
    }
    let slots = cells.len();
    serde_json::to_writer(&mut out, &Last { slots, crc32c: of_count(sum, slots) })?;
    out.write_all(b"\n")
}

/// Reads them.
///
/// # Errors
/// Why they cannot be: a line that is none, a sum that is another, an end that is missing.
pub fn read(text: &str) -> Result<Vec<Cell>, String> {
    let (mut cells, mut sum) = (Vec::<Cell>::new(), 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        if let Ok(Last { slots, crc32c }) = serde_json::from_str::<Last>(line) {
            if crc32c != of_count(sum, slots) {
                return Err("its sum is another".to_owned());
            }
            if number + 1 != text.split_inclusive('\n').count() || !line.ends_with('\n') {
                return Err("something follows its end".to_owned());
            }
            if slots < cells.len() || slots > SLOTS_MAX {
                return Err(format!("it says that it has {slots} slots"));
            }
            cells.resize(slots, Cell::default());
            return Ok(cells);
        }
        let parsed = serde_json::from_str::<Line>(line).ok().and_then(cell_of);
        let in_order = |(slot, _): &(usize, Cell)| *slot >= cells.len() && *slot < SLOTS_MAX;
        let Some((slot, cell)) = parsed.filter(in_order) else {
            return Err(format!("line {} is none of slots in order", number + 1));
        };
        cells.resize(slot, Cell::default());
        cells.push(cell);
        sum = crc32c::crc32c_append(sum, line.as_bytes());
    }
    Err("its end is missing".to_owned())
}

fn of_count(sum: u32, slots: usize) -> u32 {
    crc32c::crc32c_append(sum, slots.to_string().as_bytes())
}

fn cell_of(Line(slot, due, fates, buckets): Line) -> Option<(usize, Cell)> {
    let mut cell = Cell { due, fates: fates.try_into().ok()?, ..Cell::default() };
    for (bucket, n) in buckets {
        *cell.buckets.get_mut(bucket)? = n;
    }
    Some((slot, cell))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells() -> Vec<Cell> {
        let mut cells = vec![Cell::default(); 9];
        (cells[3].due, cells[3].fates[1], cells[3].buckets[17]) = (5, 4, 4);
        (cells[7].due, cells[7].fates[6]) = (1, 1);
        cells
    }

    fn written() -> String {
        let mut out = Vec::new();
        write(&cells(), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(read(&written()).unwrap(), cells());
    }

    #[test]
    fn a_changed_byte_or_a_missing_line_is_seen() {
        let text = written();
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            let changed = String::from_utf8_lossy(&bytes).into_owned();
            assert!(read(&changed).is_err(), "byte {at}");
        }
        assert!(read(&format!("{text}x")).is_err());
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        for without in 0..lines.len() {
            let rest = lines.iter().enumerate().filter(|(n, _)| *n != without);
            assert!(
                read(&rest.map(|(_, line)| *line).collect::<String>()).is_err(),
                "line {without}"
            );
        }
    }
}
