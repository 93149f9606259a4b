//! Versions, compared by their dotted numbers.

use std::cmp::Ordering;

/// `1.10` is above `1.9`; what is missing counts as 0; of a part that begins with digits only those count, and a part
/// without any counts as 0. A leading `v` is ignored.
pub fn compare(left: &str, right: &str) -> Ordering {
    let (left, right) = (parts(left), parts(right));
    (0..left.len().max(right.len()))
        .map(|i| left.get(i).unwrap_or(&0).cmp(right.get(i).unwrap_or(&0)))
        .find(|order| order.is_ne())
        .unwrap_or(Ordering::Equal)
}

fn parts(version: &str) -> Vec<u64> {
    let version = version.trim();
    version
        .strip_prefix(['v', 'V'])
        .unwrap_or(version)
        .split(['.', '-', '+', '_'])
        .map(|part| {
            let digits = part.bytes().take_while(u8::is_ascii_digit).count();
            part[..digits].parse().unwrap_or(0)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        let table = [
            ("1.10.0", "1.9.9", Ordering::Greater),
            ("1.3.0", "1.3", Ordering::Equal),
            ("v24.1.0", "24", Ordering::Greater),
            ("2", "10", Ordering::Less),
            ("1.2.3", "1.2.3", Ordering::Equal),
            ("1.2.3rc1", "1.2.3", Ordering::Equal),
            ("0.9", "1.0", Ordering::Less),
            ("", "0", Ordering::Equal),
            ("99999999999999999999.1", "1", Ordering::Less),
        ];
        for (left, right, order) in table {
            assert_eq!(compare(left, right), order, "{left} and {right}");
            assert_eq!(compare(right, left), order.reverse(), "{right} and {left}");
        }
    }
}
