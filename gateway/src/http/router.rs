//! Which route takes a request. Owns the order of specificity; knows nothing of what a route does.
//!
//! The order, most specific first: an exact host before a suffix, a longer suffix before a shorter, any host last;
//! within a host, segment by segment from the left: a literal before a capture before the rest (`/**`). If no
//! path of a more specific host fits, the less specific hosts are asked: `/status/**` for any host is meant for any host.
//! The cost depends on the length of the path and not on the number of routes.

use std::collections::HashMap;

use crate::config::model::{HostMatch, PathMatch, Segment};

/// Routes by host and path; `T` is what is found.
#[derive(Debug)]
pub struct Router<T> {
    exact: HashMap<String, Node<T>>,
    suffix: HashMap<String, Node<T>>,
    any: Node<T>,
}

#[derive(Debug)]
struct Node<T> {
    literals: HashMap<String, Self>,
    capture: Option<Box<Self>>,
    /// The path ends here.
    end: Option<T>,
    /// Whatever follows.
    rest: Option<T>,
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self {
            literals: HashMap::new(),
            capture: None,
            end: None,
            rest: None,
        }
    }
}

impl<T> Default for Router<T> {
    fn default() -> Self {
        Self {
            exact: HashMap::new(),
            suffix: HashMap::new(),
            any: Node::default(),
        }
    }
}

impl<T> Router<T> {
    /// Adds a route. Of two for the same requests the first stays; the configuration's check refuses such pairs.
    pub fn insert(&mut self, host: &HostMatch, path: &PathMatch, route: T) {
        let mut node = match host {
            HostMatch::Exact(host) => self.exact.entry(host.clone()).or_default(),
            HostMatch::Suffix(host) => self.suffix.entry(host.clone()).or_default(),
            HostMatch::Any => &mut self.any,
        };
        for segment in segments_of(path) {
            node = match segment {
                Segment::Literal(literal) => node.literals.entry(literal.clone()).or_default(),
                Segment::Capture(_) => node.capture.get_or_insert_default(),
            };
        }
        let place = if path.prefix {
            &mut node.rest
        } else {
            &mut node.end
        };
        place.get_or_insert(route);
    }

    /// The most specific route for a host (lower case, no port) and a canonical path.
    #[must_use]
    pub fn find(&self, host: &str, path: &str) -> Option<&T> {
        if let Some(found) = self.exact.get(host).and_then(|node| node.find(path)) {
            return Some(found);
        }
        if !self.suffix.is_empty() {
            let parents = host.match_indices('.').map(|(dot, _)| &host[dot + 1..]);
            if let Some(found) = parents
                .filter_map(|parent| self.suffix.get(parent)?.find(path))
                .next()
            {
                return Some(found);
            }
        }
        self.any.find(path)
    }
}

/// The root alone has no segments, however it was split.
fn segments_of(path: &PathMatch) -> &[Segment] {
    match path.segments.as_slice() {
        [Segment::Literal(only)] if only.is_empty() => &[],
        segments => segments,
    }
}

impl<T> Node<T> {
    fn find(&self, path: &str) -> Option<&T> {
        let path = path.strip_prefix('/')?;
        self.walk(if path.is_empty() { None } else { Some(path) })
    }

    /// `left` is what follows the last slash taken; `None` if the path has ended. The depth is that of the routes.
    fn walk(&self, left: Option<&str>) -> Option<&T> {
        let Some(left) = left else {
            return self.end.as_ref().or(self.rest.as_ref());
        };
        let (segment, after) = match left.split_once('/') {
            Some((segment, after)) => (segment, Some(after)),
            None => (left, None),
        };
        self.literals
            .get(segment)
            .and_then(|node| node.walk(after))
            .or_else(|| self.capture.as_ref().filter(|_| !segment.is_empty())?.walk(after))
            .or(self.rest.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(pattern: &str) -> PathMatch {
        let (body, prefix) = match pattern.strip_suffix("/**") {
            Some(body) => (body, true),
            None => (pattern, false),
        };
        let segment = |s: &str| match s.strip_prefix('{').and_then(|s| s.strip_suffix('}')) {
            Some(name) => Segment::Capture(name.into()),
            None => Segment::Literal(s.into()),
        };
        let segments = body.split('/').skip(1).map(segment).collect();
        PathMatch {
            pattern: pattern.into(),
            segments,
            prefix,
        }
    }

    fn router(routes: &[(HostMatch, &'static str)]) -> Router<&'static str> {
        let mut router = Router::default();
        for (host, pattern) in routes {
            router.insert(host, &path(pattern), *pattern);
        }
        router
    }

    #[test]
    fn literal_before_capture_before_rest_at_every_segment() {
        let any = |pattern| (HostMatch::Any, pattern);
        let routes = [
            "/**",
            "/",
            "/users/{id}",
            "/users/me",
            "/users/{id}/posts/**",
            "/users/me/**",
            "/v1/orders/**",
        ];
        let r = router(&routes.map(any));
        for (asked, found) in [
            ("/", "/"),
            ("/other", "/**"),
            ("/users", "/**"),
            ("/users/7", "/users/{id}"),
            ("/users/me", "/users/me"),
            ("/users/7/posts", "/users/{id}/posts/**"),
            ("/users/7/posts/1/x", "/users/{id}/posts/**"),
            ("/users/me/posts/1", "/users/me/**"),
            ("/users/7/likes", "/**"),
            ("/users/", "/**"),
            ("/v1/orders", "/v1/orders/**"),
            ("/v1/orders/", "/v1/orders/**"),
            ("/v1/ordersx", "/**"),
        ] {
            assert_eq!(r.find("h", asked), Some(&found), "{asked}");
        }
    }

    #[test]
    fn a_dead_end_goes_back_to_the_next_best() {
        let r = router(&[
            (HostMatch::Any, "/a/b/c"),
            (HostMatch::Any, "/a/{x}/d"),
            (HostMatch::Any, "/{y}/b/**"),
        ]);
        assert_eq!(r.find("h", "/a/b/c"), Some(&"/a/b/c"));
        assert_eq!(r.find("h", "/a/b/d"), Some(&"/a/{x}/d"));
        assert_eq!(r.find("h", "/a/b/e"), Some(&"/{y}/b/**"));
        assert_eq!(r.find("h", "/a/c/e"), None);
    }

    #[test]
    fn hosts_from_exact_to_any_with_the_others_as_a_fallback() {
        let exact = HostMatch::Exact("api.example.com".into());
        let (near, far) = (
            HostMatch::Suffix("example.com".into()),
            HostMatch::Suffix("com".into()),
        );
        let r = router(&[
            (exact, "/x"),
            (near, "/{near}"),
            (far, "/{far}/**"),
            (HostMatch::Any, "/status/**"),
        ]);
        assert_eq!(r.find("api.example.com", "/x"), Some(&"/x"));
        assert_eq!(r.find("api.example.com", "/y"), Some(&"/{near}"));
        assert_eq!(r.find("a.b.example.com", "/y"), Some(&"/{near}"));
        assert_eq!(
            r.find("example.com", "/y"),
            Some(&"/{far}/**"),
            "a suffix needs a label in front"
        );
        assert_eq!(r.find("other.org", "/status/x"), Some(&"/status/**"));
        assert_eq!(r.find("other.org", "/y"), None);
    }

    #[test]
    fn five_thousand_routes_are_told_apart() {
        let mut router = Router::default();
        for i in 0..5000 {
            router.insert(&HostMatch::Any, &path(&format!("/s{i}/**")), i);
        }
        assert!((0..5000).all(|i| router.find("h", &format!("/s{i}/x")) == Some(&i)));
        assert_eq!(router.find("h", "/s5000"), None);
    }
}
