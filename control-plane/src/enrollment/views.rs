//! Join codes and the devices that ask to join. No page shows a fingerprint: the person brings it from the device.

use askama::Template;
use askama::filters::HtmlSafe;

use crate::clients::views::ClientRef;
use crate::web::{Moment, RowState, Shell};

#[derive(Template)]
#[template(path = "enrollment/join_code.html")]
pub struct JoinCodePage {
    pub shell: Shell,
    pub client: ClientRef,
    /// Address of the live fragment: /enrollments/events?client=ID
    pub events: String,
    /// The one command to paste on the device.
    pub command: String,
    pub expires: Moment,
    /// Says that a device without the package needs `--publisher-key`.
    pub publisher_note: bool,
}

#[derive(Template)]
#[template(path = "enrollment/enrollments.html")]
pub struct EnrollmentsPage {
    pub shell: Shell,
    pub fragment: EnrollmentsFragment,
}

/// What /enrollments/events sends.
#[derive(Template)]
#[template(path = "enrollment/_enrollments.html")]
pub struct EnrollmentsFragment {
    pub cards: Vec<EnrollmentCard>,
    pub quarantines: Vec<QuarantineCard>,
    pub renewals: Vec<RenewalCard>,
    pub decided: Vec<DecidedRow>,
    pub can_consult: bool,
    /// The form asks for the password too: the session isn't fresh.
    pub ask_password: bool,
    /// Set on the page of one client's join code: only that client's devices are listed.
    pub only: Option<ClientRef>,
}

/// A device that waits for a decision. POST /enrollments/ID/approve with four `fingerprint`, or
/// /enrollments/ID/reject with `reason`.
pub struct EnrollmentCard {
    pub id: String,
    pub host_name: String,
    pub client: ClientRef,
    pub model: String,
    pub os: String,
    pub serial: String,
    pub managed_user: String,
    pub address: String,
    pub hardware_uuid: String,
    pub asked: Moment,
    pub expires: Moment,
    pub warnings: Vec<String>,
    /// The device that this one would take the place of.
    pub replaces: Option<String>,
    pub error: Option<String>,
    /// What was typed as the fingerprint before the error.
    pub typed: String,
}

/// A device that came as another Mac. POST /devices/ID/quarantine with `release` and the `hardware_uuid` shown.
pub struct QuarantineCard {
    pub id: String,
    pub name: String,
    pub client: ClientRef,
    /// Hardware UUIDs: of the enrolled Mac, and of the one that came.
    pub enrolled: String,
    pub came: String,
}

/// A device that asks to renew after a long silence. POST /devices/ID/renewal.
pub struct RenewalCard {
    pub id: String,
    pub name: String,
    pub client: ClientRef,
    pub seen: Option<Moment>,
    pub asked: Moment,
}

pub struct DecidedRow {
    pub host_name: String,
    pub client: ClientRef,
    pub state: RowState,
    pub word: String,
    pub by: String,
    pub at: Moment,
    pub reason: Option<String>,
    pub device_href: Option<String>,
}

impl HtmlSafe for EnrollmentsFragment {}

impl EnrollmentsFragment {
    /// The document's title, also for the `title` event.
    pub fn title(&self) -> String {
        let place = match &self.only {
            Some(client) => format!("Join code · {} · Board", client.name),
            None => "Enrollments · Board".to_owned(),
        };
        match (self.cards.len(), self.quarantines.len() + self.renewals.len()) {
            (0, 0) => place,
            (1, 0) => format!("1 asks to join · {place}"),
            (cards, 0) => format!("{cards} ask to join · {place}"),
            (cards, others) => format!("{} to decide · {place}", cards + others),
        }
    }

    /// Whether the favicon asks for somebody, also for the `favicon` event ("needs" or "calm").
    pub fn needs_you(&self) -> bool {
        !(self.cards.is_empty() && self.quarantines.is_empty() && self.renewals.is_empty())
    }

    fn announcement(&self) -> String {
        match self.cards.as_slice() {
            [] => String::new(),
            [card] => format!("{} asks to join.", card.host_name),
            cards => format!("{} devices ask to join.", cards.len()),
        }
    }
}

impl EnrollmentCard {
    /// What was typed, spread over the four boxes; what doesn't fit stays in the last one.
    fn boxes(&self) -> [String; 4] {
        let typed: Vec<char> = self
            .typed
            .chars()
            .filter(|c| !c.is_whitespace() && *c != '-')
            .flat_map(char::to_uppercase)
            .collect();
        let part = |from: usize, to: usize| typed.iter().skip(from).take(to - from).collect::<String>();
        [part(0, 4), part(4, 8), part(8, 12), part(12, usize::MAX)]
    }
}

#[cfg(test)]
mod tests {
    use shared::time::Timestamp;

    use super::*;

    #[test]
    fn what_was_typed_comes_back_in_its_boxes() {
        let moment = Moment { at: Timestamp::from_micros(0), now: Timestamp::from_micros(0) };
        let card = EnrollmentCard {
            id: String::new(),
            host_name: String::new(),
            client: ClientRef { href: String::new(), name: String::new() },
            model: String::new(),
            os: String::new(),
            serial: String::new(),
            managed_user: String::new(),
            address: String::new(),
            hardware_uuid: String::new(),
            asked: moment,
            expires: moment,
            warnings: Vec::new(),
            replaces: None,
            error: None,
            typed: "7q4k m2xp-abcd ef2345".to_owned(),
        };
        assert_eq!(card.boxes(), ["7Q4K", "M2XP", "ABCD", "EF2345"]);
    }
}
