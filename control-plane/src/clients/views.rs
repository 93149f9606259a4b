//! The list of clients and the form for another one.

use std::collections::BTreeSet;

use askama::Template;

use crate::web::{FieldError, Moment, RowState, Shell};

/// A client as other pages point at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientRef {
    pub href: String,
    pub name: String,
}

#[derive(Template)]
#[template(path = "clients/list.html")]
pub struct ClientsPage {
    pub shell: Shell,
    /// Words of the name, as the address has them.
    pub q: String,
    /// How many clients there are with these words in their names.
    pub found: usize,
    /// Those of this page.
    pub clients: Vec<ClientRow>,
    /// "1 to 25 of 120"; empty while one page holds all.
    pub range: String,
    pub previous: Option<String>,
    pub next: Option<String>,
}

pub struct ClientRow {
    pub href: String,
    pub name: String,
    pub components: u32,
    pub devices: u32,
    /// The engagement is over.
    pub ended: bool,
    pub state: RowState,
    pub sentence: String,
    pub created: Moment,
}

/// The wizard's first page: POST /clients/new with `name`, `vault_name`, `notes`.
#[derive(Template)]
#[template(path = "clients/new.html")]
pub struct NewClientPage {
    pub shell: Shell,
    pub name: String,
    pub vault_name: String,
    pub notes: String,
    pub errors: Vec<FieldError>,
}

/// The second page: POST /clients/ID/package with `tier` (radio) and `addon` (check boxes).
#[derive(Template)]
#[template(path = "clients/package.html")]
pub struct PackagePage {
    pub shell: Shell,
    pub client: ClientRef,
    pub tiers: Vec<PackageChoice>,
    pub addons: Vec<PackageChoice>,
    pub errors: Vec<FieldError>,
}

/// A tier or an add-on.
pub struct PackageChoice {
    pub key: String,
    pub name: String,
    pub checked: bool,
    /// Names of the components that it preselects.
    pub components: Vec<String>,
}

/// The third page: POST /clients/ID/integrations with `component` (check boxes), and for components that are chosen
/// `choice-COMPONENT-GROUP` (radio: a slot's key) and `param-COMPONENT-KEY` (text).
#[derive(Template)]
#[template(path = "clients/integrations.html")]
pub struct IntegrationsPage {
    pub shell: Shell,
    pub client: ClientRef,
    pub components: Vec<ComponentChoice>,
    /// Fields of a package that is saved with the scope.
    pub carried: Vec<(String, String)>,
    pub errors: Vec<FieldError>,
}

pub struct ComponentChoice {
    pub key: String,
    pub name: String,
    /// Like "ai" or "crm".
    pub category: String,
    pub summary: String,
    pub checked: bool,
    /// Part of every client's scope: shown, can't be taken away.
    pub always: bool,
    /// Names of components that bring this one along.
    pub needs: Vec<String>,
    /// Outside of a group: names of the our-managed slots.
    pub ours: Vec<String>,
    /// Outside of a group: names and hints of the client-supplied slots.
    pub theirs: Vec<(String, String)>,
    pub groups: Vec<SlotGroup>,
    pub params: Vec<ParamField>,
    pub steps_agent: u32,
    pub steps_you: u32,
    pub for_platforms: String,
}

/// Slots of which exactly one is filled.
pub struct SlotGroup {
    /// Name of the form field.
    pub field: String,
    pub options: Vec<SlotOption>,
}

pub struct SlotOption {
    pub key: String,
    pub name: String,
    /// Ours, or the client's with where it lives.
    pub hint: Option<String>,
    pub checked: bool,
}

/// An input that isn't secret.
pub struct ParamField {
    pub field: String,
    pub name: String,
    pub value: String,
    pub required: bool,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct ScopeSummary {
    pub components: usize,
    pub steps_agent: u32,
    pub steps_you: u32,
    pub ours: usize,
    pub theirs: usize,
}

impl ClientsPage {
    /// How many on this page.
    fn needing(&self) -> u64 {
        let needs_you = |client: &&ClientRow| matches!(client.state, RowState::NeedsYou | RowState::Failed);
        self.clients.iter().filter(needs_you).count() as u64
    }

    /// Whether the board has no client at all.
    fn is_first(&self) -> bool {
        self.found == 0 && self.q.is_empty()
    }

    fn can_consult(&self) -> bool {
        self.shell.viewer.as_ref().is_some_and(|viewer| viewer.consultant)
    }
}

impl PackagePage {
    /// Names of the components that the ticked packages bring. `console.js` lists again as others are ticked.
    fn brings(&self) -> Vec<&str> {
        let mut names = Vec::new();
        let ticked = self.tiers.iter().chain(&self.addons).filter(|choice| choice.checked);
        for name in ticked.flat_map(|choice| &choice.components) {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        names
    }
}

/// Components that stand together on the page.
struct CategoryChoices<'a> {
    name: String,
    choices: Vec<&'a ComponentChoice>,
}

impl IntegrationsPage {
    /// In the order in which a consultant thinks of them; the machine's own affairs come last.
    fn categories(&self) -> Vec<CategoryChoices<'_>> {
        const KNOWN: [(&str, &str); 9] = [
            ("ai", "AI"),
            ("integration", "Integrations"),
            ("crm", "CRM"),
            ("commerce", "Commerce"),
            ("real-estate", "Real estate"),
            ("secrets", "Secrets"),
            ("remote", "Remote access"),
            ("runtime", "Runtimes"),
            ("system", "System"),
        ];
        let rank = |key: &str| KNOWN.iter().position(|known| known.0 == key).unwrap_or(KNOWN.len());
        let mut sorted: Vec<_> = self.components.iter().collect();
        sorted.sort_by_key(|choice| (rank(&choice.category), &choice.category));
        sorted
            .chunk_by(|one, other| one.category == other.category)
            .map(|choices| {
                let key = choices.first().map_or("", |choice| choice.category.as_str());
                let name = KNOWN.get(rank(key)).map_or(key, |known| known.1).to_owned();
                CategoryChoices { name, choices: choices.to_vec() }
            })
            .collect()
    }

    /// Names of the components that are ticked or come along with one that is.
    fn scope(&self) -> BTreeSet<&str> {
        let mut names = BTreeSet::new();
        loop {
            let before = names.len();
            for choice in &self.components {
                let along = choice.needs.iter().any(|name| names.contains(name.as_str()));
                if choice.checked || choice.always || along {
                    names.insert(choice.name.as_str());
                }
            }
            if names.len() == before {
                return names;
            }
        }
    }

    /// What the page would make. `console.js` counts again, by the same rules, as boxes are ticked.
    pub fn summary(&self) -> ScopeSummary {
        let scope = self.scope();
        let counted = self.components.iter().filter(|choice| scope.contains(choice.name.as_str()));
        counted.fold(ScopeSummary::default(), |sum, choice| ScopeSummary {
            components: sum.components + 1,
            steps_agent: sum.steps_agent + choice.steps_agent,
            steps_you: sum.steps_you + choice.steps_you,
            ours: sum.ours + choice.ours.len() + choice.chosen(true),
            theirs: sum.theirs + choice.theirs.len() + choice.chosen(false),
        })
    }
}

impl ComponentChoice {
    /// How many groups have a slot of ours (or of the client's) chosen.
    fn chosen(&self, ours: bool) -> usize {
        let options = self.groups.iter().flat_map(|group| &group.options);
        options.filter(|option| option.checked && option.hint.is_none() == ours).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(name: &str, category: &str, checked: bool, needs: &[&str]) -> ComponentChoice {
        ComponentChoice {
            key: name.to_lowercase(),
            name: name.to_owned(),
            category: category.to_owned(),
            summary: String::new(),
            checked,
            always: false,
            needs: needs.iter().map(|&name| name.to_owned()).collect(),
            ours: Vec::new(),
            theirs: Vec::new(),
            groups: Vec::new(),
            params: Vec::new(),
            steps_agent: 1,
            steps_you: 0,
            for_platforms: String::new(),
        }
    }

    fn page(components: Vec<ComponentChoice>) -> IntegrationsPage {
        let shell = Shell {
            viewer: None,
            section: crate::web::Section::Clients,
            pending: 0,
            approvals: 0,
            frozen: false,
            now: shared::time::Timestamp::from_micros(0),
        };
        let client = ClientRef { href: "/clients/1".to_owned(), name: "Example Client".to_owned() };
        IntegrationsPage { shell, client, components, carried: Vec::new(), errors: Vec::new() }
    }

    #[test]
    fn what_comes_along_is_counted_even_through_another() {
        let page = page(vec![
            choice("Node", "runtime", false, &["Code"]),
            choice("Code", "ai", false, &["Pack"]),
            choice("Pack", "ai", true, &[]),
            choice("Slack", "integration", false, &[]),
        ]);
        assert_eq!(page.summary().components, 3);
        assert_eq!(page.summary().steps_agent, 3);
    }

    #[test]
    fn a_category_stands_together_and_unknown_ones_come_last() {
        let page = page(vec![
            choice("Lamp", "home", false, &[]),
            choice("Node", "runtime", false, &[]),
            choice("Code", "ai", false, &[]),
            choice("Uv", "runtime", false, &[]),
        ]);
        let names: Vec<_> = page.categories().into_iter().map(|it| (it.name, it.choices.len())).collect();
        assert_eq!(names, [("AI".to_owned(), 1), ("Runtimes".to_owned(), 2), ("home".to_owned(), 1)]);
    }
}
