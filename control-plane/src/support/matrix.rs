//! From answers to the matrix: a row for each device that has an answer which the filter wants, a column for each
//! component among those answers.

use std::collections::{BTreeMap, HashSet};

use shared::ids::{ClientId, DeviceId};

use super::views::{Cell, Chip, Choice, Column, DeviceRef, DeviceRow, Empty, SupportPage, short_age};
use super::{Age, Answer, Filter, Known, Shows};
use crate::app::App;
use crate::inventory::drift::OLD;
use crate::inventory::{ClientFindings, DeviceFindings};
use crate::web::{Moment, Shell, count};

/// Cells on one page, about 300 bytes each: a page stays under 80 KiB however many components there are.
const CELLS: usize = 180;
/// Components with a column on one page; the others are found by choosing one.
const COLUMNS: usize = 40;
/// Characters of a version in a cell, which has place for no more; the client's page has all of it.
const VERSION: usize = 24;

/// How many devices one page shows.
pub fn page_of(columns: usize) -> usize {
    (CELLS / columns.max(1)).clamp(1, 25)
}

/// A device, or a client's place while it has none.
type RowKey = (ClientId, Option<DeviceId>);

impl Known {
    pub fn page(&self, app: &App, shell: Shell, filter: Filter, number: usize) -> SupportPage {
        let selected = self.selected(app, &filter);
        let mut rows: HashSet<RowKey> = HashSet::new();
        let mut columns: BTreeMap<(String, &str), usize> = BTreeMap::new();
        for answer in &selected {
            rows.insert(key(answer));
            columns.insert((answer.name.to_lowercase(), answer.finding.component.as_str()), 0);
        }
        let hidden = columns.len().saturating_sub(COLUMNS);
        let columns: BTreeMap<(String, &str), usize> = columns.into_iter().take(COLUMNS).collect();
        let order: BTreeMap<&str, usize> =
            columns.keys().enumerate().map(|(at, (_, component))| (*component, at)).collect();
        let clients: Vec<&ClientFindings> = self
            .clients
            .iter()
            .filter(|client| client.devices.iter().any(|found| rows.contains(&row_key(client, found))))
            .collect();
        let lines: Vec<(&ClientFindings, &DeviceFindings)> = clients
            .iter()
            .flat_map(|client| client.devices.iter().map(|found| (*client, found)))
            .filter(|(client, found)| rows.contains(&row_key(client, found)))
            .collect();
        let length = page_of(columns.len());
        let pages = lines.len().div_ceil(length).max(1);
        let number = number.clamp(1, pages);
        let table = lines
            .iter()
            .skip((number - 1) * length)
            .take(length)
            .map(|(client, found)| self.row(app, client, found, &order, &filter))
            .collect();
        let at = |number: usize| {
            let query = filter.query();
            let join = if query.is_empty() { '?' } else { '&' };
            format!("/support{query}{join}page={number}")
        };
        let devices = rows.iter().filter(|(_, device)| device.is_some()).count();
        SupportPage {
            shell,
            made: Moment { at: self.now, now: self.now },
            components: self.component_choices(&filter),
            drifts: choices(
                Shows::all().map(|shows| (shows.as_str(), shows.word())),
                filter.drift.map(Shows::as_str),
            ),
            ages: choices(
                Age::ALL.into_iter().map(|age| (age.as_str(), age.word())),
                filter.age.map(Age::as_str),
            ),
            chips: self.chips(app, &filter),
            found: format!(
                "{} on {} at {}",
                count(selected.len(), "component", "components"),
                count(devices, "device", "devices"),
                count(clients.len(), "client", "clients")
            ),
            range: match pages {
                1 => String::new(),
                _ => {
                    let (first, last) = ((number - 1) * length + 1, lines.len().min(number * length));
                    format!("Rows {first} to {last} of {}", lines.len())
                }
            },
            columns: columns
                .keys()
                .map(|(_, component)| Column {
                    name: self.name_of(component),
                    href: {
                        let only = Filter { component: (*component).to_owned(), ..filter.clone() };
                        format!("/support{}", only.query())
                    },
                })
                .collect(),
            hidden: (hidden > 0).then(|| count(hidden, "more component is", "more components are")),
            empty: selected.is_empty().then(|| self.why_empty(&filter)),
            csv: format!("/support.csv{}", filter.query()),
            json: format!("/support.json{}", filter.query()),
            previous: (number > 1).then(|| at(number - 1)),
            next: (number < pages).then(|| at(number + 1)),
            rows: table,
            filter,
        }
    }

    fn name_of(&self, component: &str) -> String {
        self.names.get(component).cloned().unwrap_or_else(|| component.to_owned())
    }

    fn why_empty(&self, filter: &Filter) -> Empty {
        if self.clients.is_empty() {
            Empty::NoClient
        } else if !filter.is_empty() {
            Empty::NoMatch
        } else if self.has_catalog {
            Empty::NoScope
        } else {
            Empty::NoCatalog
        }
    }

    fn component_choices(&self, filter: &Filter) -> Vec<Choice> {
        let mut all: Vec<(&String, &String)> = self.names.iter().collect();
        all.sort_by_key(|(_, name)| name.to_lowercase());
        all.into_iter()
            .map(|(key, name)| Choice {
                value: key.clone(),
                word: name.clone(),
                chosen: *key == filter.component || name.to_lowercase() == filter.component.to_lowercase(),
            })
            .collect()
    }

    /// What else the rest of the filter would show.
    fn chips(&self, app: &App, filter: &Filter) -> Vec<Chip> {
        let often = [
            ("All", None, None),
            ("Differ", Some(Shows::Differs), None),
            ("Not known", Some(Shows::Open), None),
            ("Not heard for a day", None, Some(Age::Day)),
            ("Off", None, Some(Age::Off)),
        ];
        let mut devices = [const { (0, None) }; 5];
        for answer in self.answers(app).filter(|answer| answer.device.is_some()) {
            for ((_, drift, age), (number, last)) in often.iter().zip(&mut devices) {
                let one = Filter { drift: *drift, age: *age, ..Filter::default() };
                // Answers come device by device.
                if *last != Some(key(&answer)) && one.wants(&answer, self.now) && filter.is_about(&answer) {
                    *number += 1;
                    *last = Some(key(&answer));
                }
            }
        }
        often
            .into_iter()
            .zip(devices)
            .map(|((word, drift, age), (devices, _))| Chip {
                href: format!("/support{}", Filter { drift, age, ..filter.clone() }.query()),
                word,
                devices,
                chosen: filter.drift == drift && filter.age == age,
            })
            .collect()
    }

    fn row(
        &self,
        app: &App,
        client: &ClientFindings,
        found: &DeviceFindings,
        order: &BTreeMap<&str, usize>,
        filter: &Filter,
    ) -> DeviceRow {
        let client_href = format!("/clients/{}", client.id);
        let device = found.device.as_ref();
        let on = device.is_some_and(|device| app.links.since(device.id).is_some());
        let mut cells: Vec<Option<Cell>> = order.iter().map(|_| None).collect();
        for finding in &found.findings {
            let Some(at) = order.get(finding.component.as_str()) else { continue };
            let name = self.names.get(&finding.component).unwrap_or(&finding.component);
            let answer = Answer { client, device, on, finding, name };
            cells[*at] = Some(self.cell(&answer, &client_href, !filter.wants(&answer, self.now)));
        }
        DeviceRow {
            client: client.name.clone(),
            client_href,
            device: device.map(|device| DeviceRef {
                name: device.name.clone(),
                href: format!("/devices/{}/runbook", device.id),
                on,
                last_seen: device.last_seen_at.map(|at| Moment { at, now: self.now }),
            }),
            cells,
        }
    }

    fn cell(&self, answer: &Answer<'_>, client_href: &str, aside: bool) -> Cell {
        let finding = answer.finding;
        let anchor = match answer.device {
            Some(device) => format!("{}-{}", device.id, finding.component),
            None => "installed".to_owned(),
        };
        let slots: Vec<String> =
            finding.slots.iter().map(|slot| format!("{} {}", slot.slot, slot.drift.word())).collect();
        let looked = finding.observed_at.map(|at| Moment { at, now: self.now }.exact());
        let title = slots.into_iter().chain(looked).collect::<Vec<_>>().join(", ");
        Cell {
            href: format!("{client_href}#{anchor}"),
            state: finding.drift.row_state(),
            word: finding.drift.word(),
            version: finding.version.as_deref().filter(|version| !version.is_empty()).map(shortened),
            age: finding.observed_at.map_or_else(String::new, |at| short_age(at, self.now)),
            old: finding.is_older_than(OLD, self.now),
            title,
            aside,
        }
    }
}

fn shortened(version: &str) -> String {
    if version.chars().count() <= VERSION {
        return version.to_owned();
    }
    version.chars().take(VERSION - 1).chain(['…']).collect()
}

fn key(answer: &Answer<'_>) -> RowKey {
    (answer.client.id, answer.device.map(|device| device.id))
}

fn row_key(client: &ClientFindings, found: &DeviceFindings) -> RowKey {
    (client.id, found.device.as_ref().map(|device| device.id))
}

fn choices(
    all: impl Iterator<Item = (&'static str, &'static str)>,
    chosen: Option<&'static str>,
) -> Vec<Choice> {
    all.map(|(value, word)| Choice {
        value: value.to_owned(),
        word: word.to_owned(),
        chosen: chosen == Some(value),
    })
    .collect()
}
