//! What every format can hold.

use anyhow::Result;
use serde::Serialize;

/// Digits of a similarity behind its point, in tables.
pub const SIMILARITY_DIGITS: usize = 4;

/// A result that every format can hold.
pub trait Record: Serialize {
    /// Names of the columns.
    const COLUMNS: &'static [&'static str];

    /// Rows of a CSV file, at least one.
    fn rows(&self) -> Vec<Vec<String>>;

    /// Lines for a person.
    fn table(&self) -> String;

    /// Members of COCO's list of results, in JSON; `None` of what is no result of COCO's.
    fn coco(&self) -> Option<Vec<String>> {
        None
    }

    /// Whether [`Record::coco`] gives something.
    const COCO: bool = false;
}

/// Rows as lines of a CSV file.
pub fn csv_lines(rows: &[Vec<String>]) -> Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    rows.iter().try_for_each(|row| writer.write_record(row))?;
    Ok(String::from_utf8(writer.into_inner()?)?)
}
