//! Turns that kept a core from all others.

use super::data;
use super::time::why;
use crate::render::page::{Block, Doc, Fact, Figure, Table, Unit};

/// How many, and the longest of them with the function in which they were.
pub(super) fn blocks(doc: &Doc<'_>) -> Vec<Block> {
    if !doc.is_known(&data("/stalls")) {
        return vec![Block::Facts(vec![Fact::new(
            "Turns that kept a core from all others",
            [Figure::text(why(doc, "/stalls"))],
        )])];
    }
    let facts = vec![Fact::new(
        "Turns that kept a core from all others",
        [
            doc.figure(&data("/stalls/found"), Unit::Count),
            Figure::text(" of "),
            doc.figure(&data("/stalls/limit_ns"), Unit::Ns),
            Figure::text(" or longer"),
        ],
    )];
    let rows = doc.list(&data("/stalls/longest")).len();
    if rows == 0 {
        return vec![Block::Facts(facts)];
    }
    let columns = ["whose", "where", "core", "at", "at least"];
    let mut table = Table::new("The longest turns that kept a core", &columns, 2);
    for index in 0..rows {
        let at = |key: &str| data(&format!("/stalls/longest/{index}/{key}"));
        let place = match doc.is_known(&at("stack")) {
            true => doc.figure(&at("stack/0"), Unit::Text),
            false => doc.figure(&at("stack"), Unit::Text),
        };
        table.rows.push(vec![
            doc.figure(&at("owner"), Unit::Text),
            place,
            doc.figure(&at("core"), Unit::Count),
            doc.figure(&at("at_s"), Unit::Seconds),
            doc.figure(&at("at_least_ns"), Unit::Ns),
        ]);
    }
    vec![Block::Facts(facts), Block::Table(table)]
}
