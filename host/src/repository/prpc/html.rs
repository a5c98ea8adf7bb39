//! The text of an error page.
//!
//! Frontends before the service answer in HTML, which looks odd in a status.

/// Elements whose contents nobody sees.
const UNSEEN: [&str; 3] = ["head", "script", "style"];

/// Entities that occur in error pages.
const ENTITIES: [(&str, &str); 6] = [
    ("&lt;", "<"),
    ("&gt;", ">"),
    ("&quot;", "\""),
    ("&#39;", "'"),
    ("&nbsp;", " "),
    // Last: what it yields is not looked at again.
    ("&amp;", "&"),
];

/// Returns what a reader of the page would see, on one line; text that is no page, or a
/// page without any, is returned as it is.
pub(super) fn text_of(page: &str) -> String {
    let start = page.trim_start();
    if !start.starts_with('<') {
        return page.to_owned();
    }
    let mut words = Vec::new();
    let mut rest = start;
    while let Some((text, tag)) = rest.split_once('<') {
        words.extend(text.split_whitespace());
        rest = after_tag(tag);
    }
    words.extend(rest.split_whitespace());
    if words.is_empty() {
        return page.to_owned();
    }
    ENTITIES
        .iter()
        .fold(words.join(" "), |text, (entity, c)| text.replace(entity, c))
}

/// Returns what follows a tag, and its element if that is unseen. What is not closed goes
/// on to the end.
fn after_tag(tag: &str) -> &str {
    if let Some(comment) = tag.strip_prefix("!--") {
        return comment.split_once("-->").map_or("", |(_, rest)| rest);
    }
    let Some((inside, rest)) = tag.split_once('>') else {
        return "";
    };
    let end = inside.find(|c: char| !c.is_ascii_alphanumeric());
    let name = inside[..end.unwrap_or(inside.len())].to_ascii_lowercase();
    if !UNSEEN.contains(&name.as_str()) {
        return rest;
    }
    let end = format!("</{name}");
    let mut places = rest.as_bytes().windows(end.len());
    let at = places.position(|place| place.eq_ignore_ascii_case(end.as_bytes()));
    at.map_or("", |at| after_tag(&rest[at + 1..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_page_is_too_odd(page in r#"(<|>|<style>|</STYLE|<!--|-->|&lt;|ä| |a|/){0,30}"#) {
            text_of(&page);
            text_of(&format!("<{page}"));
        }
    }

    #[test]
    fn only_what_a_reader_sees_is_left_of_a_page() {
        let page = r#"
            <!DOCTYPE html><html><!-- <b>no</b> -->
            <head><title>502</title><style>p { color: red }</style></head>
            <BODY class="a">
              <h1>Bad gateway</h1>
              <p>The server said &lt;no&gt; &amp;amp;
                 <b>twice</b>.<script>if (1 < 2) {}</script></p>
            </BODY></html>"#;
        assert_eq!(
            text_of(page),
            "Bad gateway The server said <no> &amp; twice ."
        );
    }

    #[test]
    fn text_is_left_as_it_is() {
        for text in ["", "no storage: 1 < 2", " a\n b ", "<html></html>"] {
            assert_eq!(text_of(text), text);
        }
    }

    #[test]
    fn a_page_that_is_cut_yields_what_is_there() {
        assert_eq!(text_of("<p>Bad <b"), "Bad");
        assert_eq!(text_of("<p>Bad<style>p {"), "Bad");
        assert_eq!(text_of("<p>Bad<!-- x"), "Bad");
        assert_eq!(text_of("<p>Bad<style>x</style"), "Bad");
    }
}
