//! Text on its way into a spreadsheet.

/// Names, versions and reasons come from people and devices: what a spreadsheet would take for a formula gets an apostrophe
/// before it, which spreadsheets read as "this is text".
pub fn inert(text: &str) -> String {
    const BEGINS_A_FORMULA: [char; 11] = ['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠'];
    let first = text.trim_start_matches([' ', '\u{a0}']).chars().next();
    if first.is_some_and(|first| BEGINS_A_FORMULA.contains(&first)) {
        format!("'{text}")
    } else {
        text.to_owned()
    }
}
