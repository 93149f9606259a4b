//! The Markdown of manual steps as HTML: paragraphs, lists, emphasis and code. Raw HTML is shown as text; links and
//! images keep their words only, so that a page never leads away from the board.

use pulldown_cmark::{Event, Parser, Tag, TagEnd, html};

use super::views::Markdown;

pub fn render(text: &str) -> Markdown {
    let mut shown = String::new();
    html::push_html(&mut shown, Parser::new(text).filter_map(kept));
    Markdown(shown)
}

fn kept(event: Event<'_>) -> Option<Event<'_>> {
    if let Event::Html(raw) | Event::InlineHtml(raw) = &event {
        return Some(Event::Text(raw.clone()));
    }
    let left_out = matches!(
        &event,
        Event::Start(Tag::Link { .. } | Tag::Image { .. } | Tag::HtmlBlock | Tag::Heading { .. })
            | Event::End(TagEnd::Link | TagEnd::Image | TagEnd::HtmlBlock | TagEnd::Heading(_))
    );
    (!left_out).then_some(event)
}

#[cfg(test)]
mod tests {
    use super::render;

    #[test]
    fn lists_and_code_are_kept_and_nothing_leads_away() {
        let shown = render(
            "Do *this*:\n\n1. Open `Settings`\n2. [Click](https://evil.example) <b onclick=x>here</b>",
        )
        .0;
        assert!(shown.contains("<em>this</em>") && shown.contains("<code>Settings</code>"), "{shown}");
        assert!(shown.contains("<ol>") && shown.contains("Click"), "{shown}");
        assert!(!shown.contains("href") && !shown.contains("<b "), "{shown}");
        assert!(!render("<script>alert(1)</script>").0.contains("<script"));
    }
}
