//! PostgreSQL's own programs: `pg_dump` makes the copy, `pg_restore` puts it back and reads tables out of it. Passwords
//! reach them through the environment, never as an argument.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use data_encoding::HEXLOWER;
use url::Url;

use super::BackupError;

#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` isn't there: a backup of PostgreSQL needs it. Install PostgreSQL's client programs of the server's version or newer (Debian: postgresql-client; macOS: libpq), and see that it is on the PATH; nothing was changed"
)]
pub struct Missing(&'static str);

/// Writes the database as it was at the moment of `snapshot` into `file`, in `pg_dump`'s custom format.
pub fn dump(url: &str, snapshot: &str, file: &File) -> Result<(), BackupError> {
    let into = file.try_clone().map_err(|error| failed("pg_dump", &error.to_string()))?;
    let mut command = Command::new("pg_dump");
    command.args([
        "--format=custom",
        "--no-owner",
        "--no-privileges",
        "--no-password",
        "--snapshot",
        snapshot,
    ]);
    reach(&mut command, url)?;
    run("pg_dump", command.stdout(into))
}

/// Puts a backup into an empty database, all or nothing.
pub fn put_back(url: &str, file: &Path) -> Result<(), BackupError> {
    let mut command = Command::new("pg_restore");
    command.args([
        "--no-owner",
        "--no-privileges",
        "--no-password",
        "--exit-on-error",
        "--single-transaction",
    ]);
    let database = reach(&mut command, url)?;
    // The name alone: where the server is and who asks is in the environment.
    run("pg_restore", command.arg("--dbname").arg(database).arg(file).stdout(Stdio::null()))
}

fn run(program: &'static str, command: &mut Command) -> Result<(), BackupError> {
    let done = command.stdin(Stdio::null()).output().map_err(|error| absent(program, &error))?;
    if done.status.success() {
        return Ok(());
    }
    Err(failed(program, &String::from_utf8_lossy(&done.stderr)))
}

fn absent(program: &'static str, error: &std::io::Error) -> BackupError {
    if error.kind() == std::io::ErrorKind::NotFound {
        return Missing(program).into();
    }
    failed(program, &error.to_string())
}

fn failed(program: &'static str, said: &str) -> BackupError {
    BackupError::Program { program, said: said.trim().chars().take(1000).collect() }
}

/// Sets what libpq reads from its environment; gives the database's name.
fn reach(command: &mut Command, address: &str) -> Result<String, BackupError> {
    let unreadable = || failed("the address of the database", "it can't be read");
    let url = Url::parse(address).map_err(|_| unreadable())?;
    let decoded = |text: &str| decode(text).ok_or_else(unreadable);
    let database = decoded(url.path().trim_start_matches('/'))?;
    command.env("PGDATABASE", &database);
    if let Some(host) = url.host_str() {
        command.env("PGHOST", decoded(host)?);
    }
    if let Some(port) = url.port() {
        command.env("PGPORT", port.to_string());
    }
    if !url.username().is_empty() {
        command.env("PGUSER", decoded(url.username())?);
    }
    if let Some(password) = url.password() {
        command.env("PGPASSWORD", decoded(password)?);
    }
    for (name, value) in url.query_pairs() {
        let variable = match &*name {
            "host" | "hostaddr" => "PGHOST",
            "port" => "PGPORT",
            "user" => "PGUSER",
            "password" => "PGPASSWORD",
            "sslmode" | "ssl-mode" => "PGSSLMODE",
            "sslrootcert" | "ssl-root-cert" | "ssl-ca" => "PGSSLROOTCERT",
            "sslcert" | "ssl-cert" => "PGSSLCERT",
            "sslkey" | "ssl-key" => "PGSSLKEY",
            "options" => "PGOPTIONS",
            _ => continue,
        };
        command.env(variable, &*value);
    }
    Ok(database)
}

/// Percent-decoding (RFC 3986).
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' {
            let digits = after.get(..2)?.to_ascii_lowercase();
            bytes.extend(HEXLOWER.decode(&digits).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

/// A row of a table in a backup: its columns by name.
pub struct Row(BTreeMap<String, Option<String>>);

impl Row {
    pub fn text(&self, column: &str) -> Option<String> {
        self.0.get(column).cloned().flatten()
    }

    pub fn number<N: std::str::FromStr>(&self, column: &str) -> Option<N> {
        self.text(column)?.parse().ok()
    }

    pub fn bytes(&self, column: &str) -> Option<Vec<u8>> {
        HEXLOWER.decode(self.text(column)?.strip_prefix("\\x")?.as_bytes()).ok()
    }
}

/// Gives every row of these tables to `take`; `None` when it didn't understand one.
pub fn rows(
    file: &Path,
    tables: &[&str],
    mut take: impl FnMut(&str, &Row) -> Option<()>,
) -> Result<Option<()>, BackupError> {
    let mut command = Command::new("pg_restore");
    command.args(["--data-only", "--file=-"]).args(tables.iter().map(|table| format!("--table={table}")));
    command.arg(file).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| absent("pg_restore", &error))?;
    let mut understood = Some(());
    if let Some(out) = child.stdout.take() {
        let mut columns: Option<(String, Vec<String>)> = None;
        for line in BufReader::new(out).lines() {
            let line = line.map_err(|error| failed("pg_restore", &error.to_string()))?;
            match &columns {
                None => columns = heading(&line),
                Some(_) if line == "\\." => columns = None,
                Some((table, names)) => {
                    let values = line.split('\t').map(value);
                    let row = Row(names.iter().cloned().zip(values).collect());
                    understood = understood.and_then(|()| take(table, &row));
                }
            }
        }
    }
    let done = child.wait_with_output().map_err(|error| failed("pg_restore", &error.to_string()))?;
    if !done.status.success() {
        return Err(failed("pg_restore", &String::from_utf8_lossy(&done.stderr)));
    }
    Ok(understood)
}

/// `COPY public.board (singleton, id) FROM stdin;`: the table and its columns.
fn heading(line: &str) -> Option<(String, Vec<String>)> {
    let (table, rest) = line.strip_prefix("COPY ")?.split_once(" (")?;
    let columns = rest.strip_suffix(") FROM stdin;")?;
    let plain = |name: &str| name.trim_matches('"').to_owned();
    let table = plain(table.rsplit('.').next()?);
    Some((table, columns.split(", ").map(plain).collect()))
}

/// One field of `COPY`'s text format.
fn value(field: &str) -> Option<String> {
    if field == "\\N" {
        return None;
    }
    let mut text = String::with_capacity(field.len());
    let mut chars = field.chars();
    while let Some(c) = chars.next() {
        text.push(match c {
            '\\' => match chars.next()? {
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'v' => '\u{b}',
                other => other,
            },
            other => other,
        });
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::{decode, heading, value};

    #[test]
    fn a_table_in_a_dump_is_read_as_it_was_written() {
        let (table, columns) =
            heading(r#"COPY public.audit_log (seq, "at", canonical) FROM stdin;"#).unwrap();
        assert_eq!(
            (table.as_str(), columns),
            ("audit_log", vec!["seq".into(), "at".into(), "canonical".into()])
        );
        assert_eq!(value(r"\N"), None);
        assert_eq!(value(r#"{"a":"tab\\t \t end\\"}"#).unwrap(), "{\"a\":\"tab\\t \t end\\\"}");
        assert_eq!(value(r"\\x00ff").unwrap(), r"\x00ff");
        assert_eq!((decode("a%40b%2F").as_deref(), decode("%4"), decode("%zz")), (Some("a@b/"), None, None));
    }
}
