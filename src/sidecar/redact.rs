//! Keeps secrets out of messages and logs.

/// The text without the query strings and passwords of the URLs in it: they can carry signatures and tokens.
pub(super) fn redact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, url) = rest.split_at(at + 3);
        out.push_str(before);
        let end = url
            .find(|c: char| c.is_whitespace() || "\"'<>)`".contains(c))
            .unwrap_or(url.len());
        let (url, after) = url.split_at(end);
        out.push_str(&redact_rest(url));
        rest = after;
    }
    out.push_str(rest);
    out
}

/// What follows `scheme://`.
fn redact_rest(url: &str) -> String {
    let authority_end = url.find(['/', '?', '#']).unwrap_or(url.len());
    let (authority, path) = url.split_at(authority_end);
    let authority = match authority.rsplit_once('@') {
        // `container@account` names a place, `user:password@host` does not.
        Some((user, host)) if user.contains(':') => host,
        _ => authority,
    };
    match path.find('?') {
        Some(query) => format!("{authority}{}?…", &path[..query]),
        None => format!("{authority}{path}"),
    }
}

#[cfg(test)]
mod tests {
    use super::redact;

    #[test]
    fn messages_carry_no_passwords_and_no_query_strings() {
        for (text, expected) in [
            ("no address", "no address"),
            (
                "get https://a.b/c?sig=SECRET&x=1 failed",
                "get https://a.b/c?… failed",
            ),
            ("(https://u:pw@a.b/c)", "(https://a.b/c)"),
            ("abfss://container@account/x", "abfss://container@account/x"),
            ("x://a?y x://u:p@b?z", "x://a?… x://b?…"),
            ("://", "://"),
        ] {
            assert_eq!(redact(text), expected);
        }
    }
}
