//! What masking costs: masks as many KiB of an installer's output as the first argument says, with as many secrets on
//! the device as the second says. `tests/bench` counts its instructions for two sizes; their difference is the cost.

use std::io::{self, Write as _};

use agent::steps::mask::Masks;
use shared::secret::Secret;

/// What npm, brew and pip print, roughly: words, paths, versions, progress, hashes.
const LINES: &str = "\
npm http fetch GET 200 registry/@modelcontextprotocol%2fsdk 312ms (cache miss)\n\
added 93 packages, and audited 94 packages in 4s\n\
  12 packages are looking for funding, run `npm fund` for details\n\
==> Pouring node@24--24.4.1.arm64_sequoia.bottle.tar.gz\n\
Collecting charset-normalizer<4,>=2 (from requests==2.32.3->-r requirements.txt (line 7))\n\
sha512-9OgvB0fGnSUUkY2V5mPkBQ8hQjvLx1lXsJvEYt9H3wdxiSy4Xyv8WnqF0Q==\n\
Downloading [=====================>          ] 61.2% 14.7 MiB/s eta 00:03\n\
warn deprecated glob@7.2.3: Glob versions prior to v9 are no longer supported\n";
/// How a pipe hands it over.
const READ: usize = 4096;

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<usize>());
    let (Some(Ok(kib)), Some(Ok(secrets))) = (arguments.next(), arguments.next()) else {
        return Err(io::Error::other("usage: mask_cost KIB SECRETS"));
    };
    let values: Vec<_> = (0..secrets)
        .map(|number| Secret::new(format!("{number:02}-kP9xQ2vL7wR4tY8mB3nC6jH5fD1s").into_bytes()))
        .collect();
    let mut masker = Masks::new(&values).masker();
    let text: Vec<u8> = LINES.bytes().cycle().take(kib * 1024).collect();
    let mut written = 0;
    for read in text.chunks(READ) {
        written += masker.push(read).len();
    }
    written += masker.finish().len();
    writeln!(io::stdout(), "{written}")
}
