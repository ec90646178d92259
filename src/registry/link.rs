//! Where the next page is (`Link`), and where a redirection or an upload session leads (`Location`).
//!
//! # References
//!
//! RFC 8288; OCI distribution-spec v1.1.0, "Listing Tags" and "Pushing blobs".

use url::Url;

/// A URL that the registry named, and whether it leads back to the registry itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The URL, absolute.
    pub(super) url: Url,
    /// Whether it is the registry's own scheme, host and port: only then may it see credentials.
    pub(super) is_ours: bool,
}

/// Why a URL is not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Not a URL of HTTP.
    Malformed,
    /// From TLS to plain HTTP on another server.
    Downgrade,
}

/// Resolves `location`, absolute or relative, as named by the answer to `request`.
///
/// A registry behind a proxy that ends TLS often names itself with `http:`; that is its own address with TLS again.
pub(super) fn resolve(base: &Url, request: &Url, location: &str) -> Result<Place, Refusal> {
    let mut url = request.join(location).map_err(|_| Refusal::Malformed)?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(Refusal::Malformed);
    }
    if base.scheme() == "https" && url.scheme() == "http" {
        if url.host() != base.host() || url.port() != base.port() {
            return Err(Refusal::Downgrade);
        }
        url.set_scheme("https").map_err(|()| Refusal::Malformed)?;
    }
    let is_ours = url.origin() == base.origin();
    Ok(Place { url, is_ours })
}

/// Returns the target of the first link with `rel="next"` in a `Link` header value.
pub(super) fn next(text: &str) -> Option<&str> {
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('<') {
        let (target, parameters) = after.split_once('>')?;
        // The parameters of this link end where the next link starts.
        let end = parameters.find('<').unwrap_or(parameters.len());
        let is_next = parameters[..end].split([';', ',']).any(|parameter| {
            parameter.split_once('=').is_some_and(|(name, value)| {
                name.trim().eq_ignore_ascii_case("rel")
                    && value
                        .trim()
                        .trim_matches('"')
                        .split_whitespace()
                        .any(|relation| relation.eq_ignore_ascii_case("next"))
            })
        });
        if is_next {
            return Some(target.trim());
        }
        rest = &parameters[end..];
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_next_page_is_found() {
        for (text, expected) in [
            (
                r#"</v2/a/tags/list?last=v1&n=2>; rel="next""#,
                Some("/v2/a/tags/list?last=v1&n=2"),
            ),
            (
                "<https://x.example/y>;rel=next",
                Some("https://x.example/y"),
            ),
            (
                r#"<a>; rel="prev", <b,c>; title=x; rel="last next""#,
                Some("b,c"),
            ),
            (r#"<a>; rel="prev""#, None),
            ("<a", None),
            ("", None),
        ] {
            assert_eq!(next(text), expected, "input: {text}");
        }
    }

    #[test]
    fn locations_are_resolved_and_told_apart() {
        let place = |url: &str, is_ours| {
            Ok(Place {
                url: Url::parse(url).unwrap(),
                is_ours,
            })
        };
        for (base, location, expected) in [
            (
                "https://r.example:5000/",
                "/v2/a/blobs/uploads/1?state=x%3D",
                place(
                    "https://r.example:5000/v2/a/blobs/uploads/1?state=x%3D",
                    true,
                ),
            ),
            (
                "https://r.example:5000/",
                "uploads/1",
                place("https://r.example:5000/v2/a/blobs/uploads/1", true),
            ),
            (
                "https://r.example/",
                "https://r.example:443/x",
                place("https://r.example/x", true),
            ),
            (
                "https://r.example/",
                "https://s3.example/x?sig=1",
                place("https://s3.example/x?sig=1", false),
            ),
            (
                "http://r.example/",
                "http://r.example:8080/x",
                place("http://r.example:8080/x", false),
            ),
            (
                "https://r.example/",
                "http://s3.example/x",
                Err(Refusal::Downgrade),
            ),
            (
                "https://r.example/",
                "http://r.example:8080/x",
                Err(Refusal::Downgrade),
            ),
            (
                "https://r.example/",
                "ftp://r.example/x",
                Err(Refusal::Malformed),
            ),
            ("https://r.example/", "https://", Err(Refusal::Malformed)),
        ] {
            let base = Url::parse(base).unwrap();
            let request = base.join("/v2/a/blobs/x").unwrap();
            assert_eq!(resolve(&base, &request, location), expected, "{location}");
        }
    }

    #[test]
    fn a_registry_behind_a_proxy_that_ends_tls_is_itself() {
        for (base, location, expected) in [
            (
                "https://r.example:5000/",
                "http://r.example:5000/x",
                "https://r.example:5000/x",
            ),
            (
                "https://r.example/",
                "http://r.example/x",
                "https://r.example/x",
            ),
        ] {
            let base = Url::parse(base).unwrap();
            let place = resolve(&base, &base, location).unwrap();
            assert_eq!((place.url.as_str(), place.is_ours), (expected, true));
        }
    }

    proptest! {
        #[test]
        fn next_never_panics(text in ".{0,200}") {
            let _ = next(&text);
        }
    }
}
