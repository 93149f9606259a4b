//! Where each value may be, and why. A value that is anywhere else is a leak; one that isn't where it must be means that
//! the search is blind there. So this is the whole list.

use super::job::CLIPBOARD;
use super::places::Finding;
use super::values::Form;

pub struct Allowed {
    pub finding: Finding,
    pub because: &'static str,
}

const REQUEST: &str = "the form that stores it: over TLS in operation, to the board that encrypts it";
const COPY: &str = "the copy button's answer: step-up, a reason and a committed audit entry came before it";
const BUTTON: &str = "that is what the copy button is for; the page says what else reads a clipboard";
const STORE: &str = "the device's own store, 0600 in 0700 (the keychain on a Mac): the only place where it is at rest in the clear";
const OLD: &str = "the device goes on with it until the new one arrives; then it is in the store no more";
const STEP_FILE: &str = "a tool insists on a file: 0600 in a folder of the attempt, gone after it";
const STEP: &str = "a step has the secrets that its signed manifest lists, while it runs";
const BROKER: &str =
    "the broker gives it to the program behind the wrapper that the signed manifest names, while that runs";
const PROVIDER: &str =
    "the provider is asked whether it works: one header, inside TLS, to the manifest's host";

const OURS: [&str; 9] = [
    "PRINTED",
    "AS_FILE",
    "WRAPPED",
    "EXECED",
    "COPIED",
    "TYPED",
    "ROTATED_BY_PAGE",
    "ROTATED_BY_COMMAND",
    "ASKED",
];
const ROTATED: [&str; 2] = ["ROTATED_BY_PAGE", "ROTATED_BY_COMMAND"];
const THEIRS: [&str; 5] =
    ["theirs/ON_DEVICE", "theirs/FROM_DESK", "theirs/PASTED_AGAIN", "theirs/ASKED", "sealed/FROM_BROWSER"];

pub fn allowed() -> Vec<Allowed> {
    let mut list = Vec::new();
    let mut add = |value: String, place: &str, form: Form, because: &'static str| {
        let value = super::values::named(&value);
        list.push(Allowed { finding: Finding { place: place.to_owned(), value, form }, because });
    };
    for slot in OURS {
        let stored = format!("mac/vault/slot.ours.{slot}");
        let early = format!("while a step runs: {stored}");
        add(format!("ours/{slot}"), "request POST /clients/{id}/secrets", Form::UrlEncoded, REQUEST);
        if ROTATED.contains(&slot) {
            add(format!("ours/{slot}"), &early, Form::Raw, OLD);
            add(format!("ours/{slot}, new"), &stored, Form::Raw, STORE);
        } else {
            add(format!("ours/{slot}"), &early, Form::Raw, STORE);
            add(format!("ours/{slot}"), &stored, Form::Raw, STORE);
        }
    }
    for value in ["ours/PRINTED, refused", "ours/TYPED, refused"] {
        add(value.into(), "request POST /clients/{id}/secrets", Form::UrlEncoded, REQUEST);
    }
    let rotate = "request POST /clients/{id}/secrets/{id}/rotate";
    add("ours/ROTATED_BY_PAGE, new".into(), rotate, Form::UrlEncoded, REQUEST);
    add("ours/COPIED".into(), "response to POST /clients/{id}/secrets/{id}/copy", Form::Raw, COPY);
    add("ours/COPIED".into(), CLIPBOARD, Form::Raw, BUTTON);
    let file = "while a step runs: mac/attempts/{id}/AS_FILE";
    add("ours/AS_FILE".into(), file, Form::Raw, STEP_FILE);
    add("ours/WRAPPED".into(), "environment of the program behind a wrapper", Form::Raw, BROKER);
    add("ours/EXECED".into(), "environment of the program that `board-agent exec` became", Form::Raw, BROKER);
    for value in THEIRS {
        let stored = format!("mac/vault/slot.{}", value.replace('/', "."));
        let newest = if value == "theirs/PASTED_AGAIN" { format!("{value}, new") } else { value.to_owned() };
        add(newest, &stored, Form::Raw, STORE);
    }
    for value in [
        "ours/PRINTED",
        "theirs/ON_DEVICE",
        "theirs/FROM_DESK",
        "theirs/PASTED_AGAIN",
        "theirs/PASTED_AGAIN, new",
        "sealed/FROM_BROWSER",
    ] {
        add(value.into(), "environment of a step's programs", Form::Raw, STEP);
    }
    for value in ["ours/ASKED", "theirs/ASKED"] {
        add(value.into(), "asked of the provider, inside TLS", Form::Raw, PROVIDER);
    }
    list
}
