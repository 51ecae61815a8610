//! Which network to use: `--net`, parsed.

use std::fmt;
use std::str::FromStr;

/// A provider of libfabric and, where it matters, its domain (the NIC). Neither given: what
/// `FI_PROVIDER` in the environment says, else the best that there is.
///
/// ```
/// use copper_ofi::Net;
///
/// let net: Net = "cxi1".parse()?;
/// assert_eq!((net.provider(), net.domain()), (Some("cxi"), Some("cxi1")));
/// assert_eq!("cxi://cxi1".parse::<Net>()?, net);
/// assert_eq!("tcp".parse::<Net>()?.domain(), None);
/// assert_eq!("auto".parse::<Net>()?, Net::default());
/// # Ok::<(), copper_ofi::NetError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Net {
    provider: Option<String>,
    domain: Option<String>,
}

/// Why a text is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no network: give auto, a provider (tcp, cxi, shm) or provider://domain")]
pub struct NetError {
    text: String,
}

impl Net {
    /// The provider asked for, by libfabric's name.
    pub fn provider(&self) -> Option<&str> {
        self.provider.as_deref()
    }

    /// The domain asked for, by the provider's name of it.
    pub fn domain(&self) -> Option<&str> {
        self.domain.as_deref()
    }
}

impl FromStr for Net {
    type Err = NetError;

    fn from_str(text: &str) -> Result<Net, NetError> {
        let refused = || NetError { text: text.to_owned() };
        if text == "auto" {
            return Ok(Net::default());
        }
        let (provider, domain) = match text.split_once("://") {
            Some((provider, domain)) => (provider, Some(domain)),
            None if is_cxi_domain(text) => ("cxi", Some(text)),
            None => (text, None),
        };
        // The names of providers, layered ones joined by `;` (man 7 fi_provider).
        let named = |name: &str| {
            !name.is_empty()
                && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-;.".contains(c))
        };
        // A domain's name may be an address (`192.0.2.0/24`): any visible text.
        let visible = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_graphic());
        if !named(provider) || domain.is_some_and(|domain| !visible(domain)) {
            return Err(refused());
        }
        Ok(Net { provider: Some(provider.to_owned()), domain: domain.map(str::to_owned) })
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.provider(), self.domain()) {
            (None, _) => f.write_str("auto"),
            (Some(provider), None) => f.write_str(provider),
            (Some(provider), Some(domain)) => write!(f, "{provider}://{domain}"),
        }
    }
}

fn is_cxi_domain(text: &str) -> bool {
    text.strip_prefix("cxi")
        .is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| c.is_ascii_digit()))
}

/// Environment variables that a daemon on `net` needs from its start, for libfabric reads them
/// once: whoever spawns the daemon sets those that the user has not set.
/// [`Network::open`](crate::Network::open) logs the missing ones. Empty for other providers.
///
/// From man 7 fi_cxi and man 7 cxi:
/// - `FI_CXI_RX_MATCH_MODE=hybrid`: an exhausted NIC falls back to matching in software instead
///   of aborting the process.
/// - `FI_CXI_DEFAULT_CQ_SIZE=131072`: event queues that do not overflow.
/// - `FI_CXI_PROV_KEY_CACHE=0`, `FI_CXI_OPTIMIZED_MRS=0`, `FI_CXI_MR_MATCH_EVENTS=1`: a key
///   opens the arena only, and nothing once the region is closed. Cached keys cover all memory
///   that the process ever registered.
/// - `CXI_FORK_SAFE=1`: a fork does not move registered pages.
///
/// From man 7 fi_rxm, which is below `tcp` (before 1.18) and `verbs`:
/// - `FI_OFI_RXM_BUFFER_SIZE` and `FI_OFI_RXM_MSG_RX_SIZE`: it keeps thousands of buffers, 16 KiB each,
///   unless told otherwise; see docs/adr/0016.
pub fn environment(net: &Net) -> Vec<(&'static str, &'static str)> {
    const CXI: [(&str, &str); 6] = [
        ("FI_CXI_RX_MATCH_MODE", "hybrid"),
        ("FI_CXI_DEFAULT_CQ_SIZE", "131072"),
        ("FI_CXI_PROV_KEY_CACHE", "0"),
        ("FI_CXI_OPTIMIZED_MRS", "0"),
        ("FI_CXI_MR_MATCH_EVENTS", "1"),
        ("CXI_FORK_SAFE", "1"),
    ];
    const RXM: [(&str, &str); 2] =
        [("FI_OFI_RXM_BUFFER_SIZE", RXM_BUFFER_BYTES), ("FI_OFI_RXM_MSG_RX_SIZE", RXM_RECEIVES)];
    match net.provider() {
        // What is not asked for may turn out to be either; elsewhere these do nothing.
        None => [&CXI[..], &RXM].concat(),
        Some("cxi") => CXI.to_vec(),
        Some("tcp" | "verbs") => RXM.to_vec(),
        Some(name) if name.ends_with(";ofi_rxm") => RXM.to_vec(),
        Some(_) => Vec::new(),
    }
}

/// Holds an answer with 8 KiB inside, its header and rxm's: nothing that is sent often is cut up.
const RXM_BUFFER_BYTES: &str = "9216";

/// Buffers for what comes in, of all links: while all are in use, what comes waits in the sockets.
const RXM_RECEIVES: &str = "512";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_parse_and_show_again() {
        for (text, provider, domain, shown) in [
            ("auto", None, None, "auto"),
            ("cxi", Some("cxi"), None, "cxi"),
            ("cxi0", Some("cxi"), Some("cxi0"), "cxi://cxi0"),
            ("cxi://cxi1", Some("cxi"), Some("cxi1"), "cxi://cxi1"),
            ("tcp;ofi_rxm", Some("tcp;ofi_rxm"), None, "tcp;ofi_rxm"),
            ("tcp://192.0.2.0/24", Some("tcp"), Some("192.0.2.0/24"), "tcp://192.0.2.0/24"),
        ] {
            let net: Net = text.parse().expect(text);
            assert_eq!((net.provider(), net.domain()), (provider, domain), "{text}");
            assert_eq!(net.to_string(), shown);
            assert_eq!(shown.parse::<Net>(), Ok(net));
        }
    }

    #[test]
    fn nonsense_gets_one_line() {
        for text in ["", " ", "tcp ", "cxi://", "://cxi0", "a/b", "tcp\0", "tcp://a\0"] {
            let error = text.parse::<Net>().expect_err(text).to_string();
            assert!(error.contains("auto"), "{error}");
            assert_eq!(error.lines().count(), 1);
        }
    }

    #[test]
    fn each_provider_gets_its_variables_and_auto_those_of_all() {
        let of = |net: &str| environment(&net.parse().expect("a network"));
        assert!(of("cxi0").contains(&("FI_CXI_PROV_KEY_CACHE", "0")));
        assert_eq!(of("tcp"), of("tcp;ofi_rxm"));
        assert!(of("tcp").contains(&("FI_OFI_RXM_BUFFER_SIZE", RXM_BUFFER_BYTES)));
        assert_eq!(environment(&Net::default()), [of("cxi0"), of("tcp")].concat());
        assert!(of("shm").is_empty());
    }
}
