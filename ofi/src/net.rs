//! Which network to use: `--net`, parsed.

use std::fmt;
use std::str::FromStr;

/// A provider of libfabric and, where it matters, its domain (the NIC), or several of which the first
/// that is there is taken. Neither given: what `FI_PROVIDER` in the environment says, else the best
/// that there is.
///
/// ```
/// use copper_ofi::Net;
///
/// let net: Net = "cxi1".parse()?;
/// assert_eq!(net.provider(), Some("cxi"));
/// assert!(net.domains().eq(["cxi1"]));
/// assert_eq!("cxi://cxi1".parse::<Net>()?, net);
/// assert_eq!("cxi0,cxi1".parse::<Net>()?.domains().count(), 2);
/// assert_eq!("tcp".parse::<Net>()?.domains().count(), 0);
/// assert_eq!("auto".parse::<Net>()?, Net::default());
/// # Ok::<(), copper_ofi::NetError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Net {
    provider: Option<String>,
    domains: Vec<String>,
}

/// Why a text is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is no network: give auto, a provider (tcp, cxi, shm), provider://domain, or several domains of one provider as cxi0,cxi1"
)]
pub struct NetError {
    text: String,
}

impl Net {
    /// The provider asked for, by libfabric's name.
    pub fn provider(&self) -> Option<&str> {
        self.provider.as_deref()
    }

    /// The domains asked for, by the provider's names of them, the one wanted most first.
    pub fn domains(&self) -> impl Iterator<Item = &str> {
        self.domains.iter().map(String::as_str)
    }
}

impl FromStr for Net {
    type Err = NetError;

    fn from_str(text: &str) -> Result<Net, NetError> {
        let refused = || NetError { text: text.to_owned() };
        if text == "auto" {
            return Ok(Net::default());
        }
        let mut words = text.split(',');
        let (provider, first) = parts(words.next().unwrap_or_default());
        let mut domains: Vec<&str> = first.into_iter().collect();
        for word in words {
            let (own, domain) = match word.split_once("://") {
                Some((own, domain)) => (own, domain),
                None => (provider, word),
            };
            if own != provider || domains.is_empty() || domains.contains(&domain) {
                return Err(refused());
            }
            domains.push(domain);
        }
        // The names of providers, layered ones joined by `;` (man 7 fi_provider).
        let named = |name: &str| {
            !name.is_empty()
                && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-;.".contains(c))
        };
        // A domain's name may be an address (`192.0.2.0/24`): any visible text.
        let visible = |name: &&str| !name.is_empty() && name.chars().all(|c| c.is_ascii_graphic());
        if !named(provider) || !domains.iter().all(visible) {
            return Err(refused());
        }
        let domains = domains.into_iter().map(str::to_owned).collect();
        Ok(Net { provider: Some(provider.to_owned()), domains })
    }
}

/// Provider and domain of the first word.
fn parts(word: &str) -> (&str, Option<&str>) {
    match word.split_once("://") {
        Some((provider, domain)) => (provider, Some(domain)),
        None if is_cxi_domain(word) => ("cxi", Some(word)),
        None => (word, None),
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.provider().unwrap_or("auto"))?;
        if !self.domains.is_empty() {
            write!(f, "://{}", self.domains.join(","))?;
        }
        Ok(())
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
        for (text, provider, domains, shown) in [
            ("auto", None, &[][..], "auto"),
            ("cxi", Some("cxi"), &[], "cxi"),
            ("cxi0", Some("cxi"), &["cxi0"], "cxi://cxi0"),
            ("cxi://cxi1", Some("cxi"), &["cxi1"], "cxi://cxi1"),
            ("cxi0,cxi1,cxi7", Some("cxi"), &["cxi0", "cxi1", "cxi7"], "cxi://cxi0,cxi1,cxi7"),
            ("cxi://cxi4,cxi://cxi5", Some("cxi"), &["cxi4", "cxi5"], "cxi://cxi4,cxi5"),
            ("tcp;ofi_rxm", Some("tcp;ofi_rxm"), &[], "tcp;ofi_rxm"),
            ("tcp://192.0.2.0/24", Some("tcp"), &["192.0.2.0/24"], "tcp://192.0.2.0/24"),
        ] {
            let net: Net = text.parse().expect(text);
            assert_eq!(net.provider(), provider, "{text}");
            assert!(net.domains().eq(domains.iter().copied()), "{text}");
            assert_eq!(net.to_string(), shown);
            assert_eq!(shown.parse::<Net>(), Ok(net));
        }
    }

    #[test]
    fn nonsense_gets_one_line() {
        for text in [
            "",
            " ",
            "tcp ",
            "cxi://",
            "://cxi0",
            "a/b",
            "tcp\0",
            "tcp://a\0",
            "cxi0,",
            "tcp,shm",
            "cxi0,tcp://lo",
            "cxi0,cxi0",
        ] {
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
