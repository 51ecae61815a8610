//! Asking libfabric what there is: hints, answers, and the choice among them.
//!
//! A hint that is not needed can make a provider answer "no data": CXI refuses automatic progress,
//! other threading than by domain, more than one vector, a foreign address format, a node name.
//! So the hints ask for what we use and nothing else.

use std::ffi::CString;
use std::net::IpAddr;
use std::{env, ptr};

use libfabric_sys as sys;
use tracing::debug;

use crate::error::{Errno, Error};
use crate::info::Info;
use crate::mode::{MODE_OFFERED, MR_MODE_OFFERED};
use crate::net::Net;

/// Messages both ways, and reads both ways.
const CAPABILITIES: u64 =
    sys::FI_MSG | sys::FI_SEND | sys::FI_RECV | sys::FI_RMA | sys::FI_READ | sys::FI_REMOTE_READ;

/// Operations that the queues must hold at once.
#[derive(Clone, Copy)]
pub(crate) struct Depth {
    /// Sends and reads.
    pub(crate) transmit: usize,
    pub(crate) receive: usize,
}

/// What to ask for.
#[derive(Clone, Copy, Default)]
struct Query<'a> {
    provider: Option<&'a str>,
    domain: Option<&'a str>,
    /// A local address.
    source: Option<IpAddr>,
    depth: Option<Depth>,
}

/// Finds what `net` asks for, able to bind to `source` if addresses are those of the Internet,
/// and with queues of at least `depth`.
pub(crate) fn find(net: &Net, source: Option<IpAddr>, depth: Depth) -> Result<Info, Error> {
    let (found, domain) = choose(net)?;
    let provider = found.provider();
    let mut query = Query { provider: Some(&provider), domain, ..Query::default() };
    let mut chosen = None;
    if let Some(address) = source.filter(|_| found.has_socket_addresses()) {
        query.source = Some(address);
        chosen = Some(query.ask_one().map_err(|source| Error::Bind {
            provider: provider.clone(),
            address: address.to_string(),
            source,
        })?);
    }
    let info = chosen.as_ref().unwrap_or(&found);
    let too_many =
        |what, asked, most| Err(Error::TooMany { provider: provider.clone(), what, asked, most });
    if info.receive_depth() < depth.receive || info.transmit_depth() < depth.transmit {
        // The default is no bound yet for some providers; asking tells.
        query.depth = Some(depth);
        match query.ask_one() {
            Ok(deeper) => chosen = Some(deeper),
            Err(_) if info.receive_depth() < depth.receive => {
                return too_many("receives", depth.receive, info.receive_depth());
            }
            Err(_) => return too_many("sends + reads", depth.transmit, info.transmit_depth()),
        }
    }
    Ok(chosen.unwrap_or(found))
}

/// The names of all providers that would do, in libfabric's order.
pub(crate) fn providers() -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    if let Ok(all) = Query::default().ask() {
        for info in all.iter() {
            let name = info.provider();
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    names
}

/// The provider, and which domain of those asked for it has: the first that is there.
fn choose(net: &Net) -> Result<(Info, Option<&str>), Error> {
    let ask = |domain| {
        let query = Query { domain, ..Query::default() };
        let found = match net.provider() {
            Some(name) => query.ask_named(name),
            None => query.ask_best(),
        };
        found.map(|found| (found, domain))
    };
    let mut found = ask(net.domains().next());
    for domain in net.domains().skip(1) {
        if found.is_err() {
            found = ask(Some(domain));
        }
    }
    found.map_err(|source| {
        let there = providers();
        let available =
            if there.is_empty() { "none that Copper can use".into() } else { there.join(", ") };
        Error::NoProvider { asked: net.to_string(), available, source }
    })
}

/// How much we want a provider that nobody asked for; less is better.
fn preference(provider: &str) -> Option<u8> {
    match provider {
        "cxi" => Some(0),
        "tcp" => Some(1),
        // tcp before 1.18
        "tcp;ofi_rxm" => Some(2),
        // Spins badly on few cores.
        "sockets" => Some(4),
        // One node only; a wait descriptor that is always ready; unreliable below.
        "shm" => None,
        name if name.starts_with("net") || name.starts_with("udp") => None,
        // Built for other hardware that is there.
        _ => Some(3),
    }
}

impl<'a> Query<'a> {
    fn ask_named(self, name: &'a str) -> Result<Info, Errno> {
        let found = Query { provider: Some(name), ..self }.ask_one();
        // Without native reliable datagrams: tcp before 1.18, and verbs.
        let layered = match name {
            "tcp" => "tcp;ofi_rxm",
            "verbs" => "verbs;ofi_rxm",
            _ => return found,
        };
        found.or_else(|_| Query { provider: Some(layered), ..self }.ask_one())
    }

    fn ask_best(self) -> Result<Info, Errno> {
        let all = self.ask()?;
        // libfabric itself shows only these; whoever set it wants what it names.
        let named = env::var_os("FI_PROVIDER").is_some_and(|value| !value.is_empty());
        all.iter()
            .filter_map(|info| {
                let wish = preference(&info.provider()).or(named.then_some(u8::MAX))?;
                Some((wish, info))
            })
            .min_by_key(|(wish, _)| *wish)
            .ok_or(Errno::NO_DATA)?
            .1
            .copy()
    }

    /// The first answer by the provider that is named; libfabric may add layered ones.
    fn ask_one(self) -> Result<Info, Errno> {
        let all = self.ask()?;
        let first =
            all.iter().find(|info| self.provider.is_none_or(|name| name == info.provider()));
        first.ok_or(Errno::NO_DATA)?.copy()
    }

    fn ask(self) -> Result<Info, Errno> {
        let hints = self.hints()?;
        let node = self.source.map(|address| {
            CString::new(address.to_string()).expect("the text of an address has no NUL")
        });
        let flags = if node.is_some() { sys::FI_SOURCE } else { 0 };
        let answer = Info::list(|head| {
            let node = node.as_ref().map_or(ptr::null(), |node| node.as_ptr());
            // SAFETY: fi_getinfo reads hints and node during the call and stores a list:
            // - the version is that of the headers, so its structures are ours;
            // - `hints` and `node` live until after the call; a null node or service is allowed;
            // - `head` is a place to be written.
            unsafe {
                sys::fi_getinfo(sys::FI_API_VERSION, node, ptr::null(), flags, hints.as_ptr(), head)
            }
        });
        let error = answer.as_ref().err();
        debug!(provider = self.provider, domain = self.domain, ?error, "fi_getinfo");
        answer
    }

    fn hints(self) -> Result<Info, Errno> {
        let mut info = Info::empty()?;
        let fields = info.fields_mut();
        fields.caps = CAPABILITIES;
        fields.mode = MODE_OFFERED;
        info.endpoint_mut().type_ = sys::FI_EP_RDM;
        info.domain_mut().threading = sys::FI_THREAD_DOMAIN;
        info.domain_mut().mr_mode = MR_MODE_OFFERED;
        if let Some(name) = self.provider {
            info.set_provider(name)?;
        }
        if let Some(name) = self.domain {
            info.set_domain(name)?;
        }
        if let Some(depth) = self.depth {
            info.transmit_mut().size = depth.transmit;
            info.receive_mut().size = depth.receive;
        }
        Ok(info)
    }
}
