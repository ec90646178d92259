//! A token server and how it is asked.
//!
//! # Format
//!
//! ```text
//! nobody, or a password    GET realm?service=S&scope=A&scope=B&account=U      with Basic authentication
//! an identity token        POST realm, a form of grant_type=refresh_token&service=S&scope=A B&client_id=...&refresh_token=...
//! ```
//!
//! # References
//!
//! Distribution project, "Token Authentication Specification", and "`OAuth2` Token Authentication" for the form.

use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use url::Url;
use url::form_urlencoded::Serializer;

use super::link;
use super::login::Login;
use super::payload::Payload;
use super::scope::Scopes;
use super::wire::Request;
use crate::base::Secret;
use crate::transport::Action;

/// How we call ourselves at token servers, which want a name.
const CLIENT: &str = "violetd";

/// A token server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Realm {
    pub(super) url: Url,
    service: Option<String>,
    /// Whether it may see the credentials.
    pub(super) is_trusted: bool,
}

impl Realm {
    /// Reads the realm that the registry at `base` names, which may be relative to it.
    pub(super) fn new(base: &Url, text: &str, service: Option<&str>) -> Option<Self> {
        let (url, is_trusted) = match link::resolve(base, base, text) {
            Ok(place) => (place.url, true),
            Err(link::Refusal::Downgrade) => (base.join(text).ok()?, false),
            Err(link::Refusal::Malformed) => return None,
        };
        Some(Self {
            url,
            service: service.map(str::to_owned),
            is_trusted,
        })
    }

    /// Returns the request for a token of the registry at `address`. A password goes into its header, not in here.
    pub(super) fn request(&self, scopes: &Scopes, login: Option<&Login>, address: &str) -> Request {
        let doing = format!(
            "get a token from {}{}",
            self.url.authority(),
            self.url.path()
        );
        let action = Action::new(doing, address);
        match login {
            Some(Login::IdentityToken(token)) => self.exchange(scopes, token, action),
            Some(Login::Password(credentials)) => {
                self.query(scopes, Some(&credentials.username), action)
            }
            None => self.query(scopes, None, action),
        }
    }

    fn query(&self, scopes: &Scopes, account: Option<&str>, action: Action) -> Request {
        let mut url = self.url.clone();
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = &self.service {
                query.append_pair("service", service);
            }
            for scope in scopes.iter() {
                query.append_pair("scope", &scope);
            }
            if let Some(account) = account {
                query.append_pair("account", account);
            }
        }
        Request::new(Method::GET, url, action)
    }

    fn exchange(&self, scopes: &Scopes, token: &Secret, action: Action) -> Request {
        let mut form = Serializer::new(String::new());
        form.append_pair("grant_type", "refresh_token")
            .append_pair("client_id", CLIENT)
            .append_pair("service", self.service.as_deref().unwrap_or_default());
        let scopes = scopes.to_string();
        if !scopes.is_empty() {
            form.append_pair("scope", &scopes);
        }
        form.append_pair("refresh_token", token.expose());
        let mut request = Request::new(Method::POST, self.url.clone(), action);
        request.headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        );
        request.payload = Payload::Form(Secret::new(form.finish()));
        request
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::login::Credentials;

    fn realm() -> Realm {
        let base = "https://registry.example/".parse().unwrap();
        Realm::new(&base, "/auth/token?x=1", Some("the service")).unwrap()
    }

    #[test]
    fn a_password_asks_by_a_query_without_it() {
        let login = Login::Password(Credentials {
            username: "u&v".to_owned(),
            password: Secret::new("hunter2".to_owned()),
        });
        let mut scopes = Scopes::push(&"a".parse().unwrap());
        scopes.merge("repository:b:pull");
        let request = realm().request(&scopes, Some(&login), "registry.example");
        assert_eq!(request.method, Method::GET);
        assert_eq!(
            request.url.as_str(),
            "https://registry.example/auth/token?x=1&service=the+service&scope=repository%3Aa%3Apull%2Cpush\
             &scope=repository%3Ab%3Apull&account=u%26v"
        );
    }

    #[test]
    fn an_identity_token_travels_in_a_form_that_is_not_shown() {
        let login = Login::IdentityToken(Secret::new("hunter2&".to_owned()));
        let mut scopes = Scopes::push(&"a".parse().unwrap());
        scopes.merge("repository:b:pull");
        let request = realm().request(&scopes, Some(&login), "registry.example");
        assert_eq!(request.method, Method::POST);
        assert!(!format!("{request:?}").contains("hunter2"));
        let Payload::Form(form) = &request.payload else {
            panic!("{request:?}");
        };
        assert_eq!(
            form.expose(),
            "grant_type=refresh_token&client_id=violetd&service=the+service\
             &scope=repository%3Aa%3Apull%2Cpush+repository%3Ab%3Apull&refresh_token=hunter2%26"
        );
    }
}
