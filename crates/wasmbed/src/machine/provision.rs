//! `wasmbed device provision`.

use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Read as _, Write as _},
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use rand::{TryRngCore as _, rngs::OsRng};
use wasmbed_board_data::Board;
use wasmbed_device::DeviceIdentity;
use wasmbed_flash::{
    Geometry,
    provision::{self, Issued, Network, Provision, decode, encode},
};
use wasmbed_pki::{FactoryId, Identity, PairingToken, Role, read_certificates};

use crate::{machine::layout::TRUST_DOMAIN, output, values};

/// More than a pairing token has, with the line's end.
const TOKEN_FILE_BYTES_MAX: u64 = 1_024;

/// How to write a microcontroller's identity into an image of its data flash.
///
/// The file has the size of the board's data flash; the identity stands at its beginning. It is one of three: that of a device of
/// the fleet (--cert-file, --key-file), one from its factory (--factory-cert-file, --factory-key-file), or a pairing token
/// (--pairing-token-file); with the last two the board joins the fleet by itself, with a key that it makes. The private key or the
/// token is in the file as it is: whoever reads the file, or the flash, has it.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The board.
    #[arg(long, value_parser = values::board())]
    board: &'static Board,
    /// PEM: the device's certificate, then the issuing authority.
    #[arg(long, value_name = "FILE", env = "WASMBED_DEVICE_CERT_FILE", default_value = "device.crt")]
    cert_file: PathBuf,
    /// PEM: its key.
    #[arg(long, value_name = "FILE", env = "WASMBED_DEVICE_KEY_FILE", default_value = "device.key")]
    key_file: PathBuf,
    /// PEM: the certificate that the board has from its factory, then the authority that issued it; instead of --cert-file.
    #[arg(long, value_name = "FILE", requires = "factory_key_file", conflicts_with_all = ["pairing_token", "pairing_token_file"])]
    factory_cert_file: Option<PathBuf>,
    /// PEM: the key of the factory's certificate.
    #[arg(long, value_name = "FILE", requires = "factory_cert_file")]
    factory_key_file: Option<PathBuf>,
    /// The pairing token of one Device, as wasmbed devices pair shows it; a list of processes shows it too, a file doesn't.
    #[arg(long, value_name = "ID.SECRET", conflicts_with = "pairing_token_file")]
    pairing_token: Option<String>,
    /// A file with the pairing token, or - for the standard input.
    #[arg(long, value_name = "FILE")]
    pairing_token_file: Option<PathBuf>,
    /// The fleet that a pairing token is for; certificates name theirs.
    #[arg(long, value_name = "NAME", default_value = TRUST_DOMAIN)]
    trust_domain: String,
    /// PEM: the root of the services; a second one may follow the first.
    #[arg(long, value_name = "FILE", env = "WASMBED_DEVICE_CA_FILE", default_value = "services-ca.crt")]
    ca_file: PathBuf,
    /// A gateway as host:port, as the board reaches it; may be given again, they are tried in this order.
    #[arg(
        long = "gateway",
        value_name = "HOST:PORT",
        required = true,
        env = "WASMBED_DEVICE_GATEWAYS",
        value_delimiter = ',',
        value_parser = values::gateway
    )]
    gateways: Vec<String>,
    /// Where the board's IPv4 address comes from: dhcp, or --address instead.
    #[arg(long, value_name = "dhcp", default_value = "dhcp", value_parser = ["dhcp"], conflicts_with = "address")]
    network: String,
    /// The board's IPv4 address with its prefix, for example 192.168.1.20/24.
    #[arg(long, value_name = "ADDRESS/BITS")]
    address: Option<String>,
    /// The router on the board's network.
    #[arg(long, value_name = "ADDRESS", requires = "address")]
    router: Option<Ipv4Addr>,
    /// A name server; up to three.
    #[arg(long, value_name = "ADDRESS", requires = "address")]
    dns: Vec<Ipv4Addr>,
    /// The image to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Replace what FILE holds: another identity, and a store without modules and state.
    #[arg(long)]
    force: bool,
    /// With --force: keep modules and state. For a new certificate of the same device only.
    #[arg(long, requires = "force")]
    keep_data: bool,
}

/// Writes the image.
///
/// # Errors
/// What is wrong with the arguments or the files, and what to do.
pub(crate) fn run(arguments: &Args) -> Result<()> {
    let chosen = Chosen::of(arguments)?;
    let roots = read_certificates(&arguments.ca_file)?;
    let network = network(arguments)?;
    let provision =
        provision(arguments.board.name, chosen.identity, &roots, arguments.gateways.clone(), network)?;
    let holds = chosen.words;
    match write_file(
        &arguments.out,
        &provision,
        &arguments.board.geometry,
        arguments.force,
        arguments.keep_data,
    )? {
        Written::New => output::print_line(&format!(
            "{} holds {holds} for {}",
            arguments.out.display(),
            arguments.board.name
        )),
        Written::Kept => {
            output::print_line(&format!("{} holds {holds} already; nothing changed", arguments.out.display()))
        }
    }
    Ok(())
}

/// An identity as a board is provisioned with it.
pub(crate) struct Chosen {
    pub(crate) identity: provision::Identity,
    /// What its Device is called, as far as it is known: a token says it to the signer alone.
    pub(crate) name: String,
    /// For people: all that is known.
    words: String,
}

impl Chosen {
    fn of(arguments: &Args) -> Result<Self> {
        if let (Some(certificate), Some(key)) = (&arguments.factory_cert_file, &arguments.factory_key_file) {
            return Self::new(&DeviceIdentity::Factory(Identity::read(certificate, key)?));
        }
        if let Some(token) = token(arguments)? {
            let token =
                token.parse().context("wasmbed devices pair makes one for a Device, and shows it once")?;
            let trust_domain = arguments.trust_domain.clone();
            return Self::new(&DeviceIdentity::Pairing { token, trust_domain });
        }
        let identity = Identity::read(&arguments.cert_file, &arguments.key_file)?;
        Self::new(&DeviceIdentity::Operational(identity))
    }

    /// # Errors
    /// The identity is not what it is given for; says what to give instead.
    pub(crate) fn new(identity: &DeviceIdentity) -> Result<Self> {
        match identity {
            DeviceIdentity::Operational(identity) => Self::operational(identity),
            DeviceIdentity::Factory(identity) => Self::factory(identity),
            DeviceIdentity::Pairing { token, trust_domain } => Self::pairing(token, trust_domain),
        }
    }

    fn operational(identity: &Identity) -> Result<Self> {
        let id = identity.spiffe_id().context(
            "the certificate names no device; issue one with wasmbed pki issue device, or give a factory's by --factory-cert-file",
        )?;
        if id.role() != Role::Device {
            bail!("the certificate is of {id}, which is no device; issue one with wasmbed pki issue device");
        }
        let (name, words) = (id.name().to_owned(), id.to_string());
        Ok(Self { identity: provision::Identity::Operational(issued(identity)), name, words })
    }

    fn factory(identity: &Identity) -> Result<Self> {
        const INSTEAD: &str =
            "issue one with wasmbed pki issue factory, or give a certificate of the fleet by --cert-file";
        let [uri] = &identity.facts().uris[..] else {
            bail!("the factory certificate does not name one spiffe://TRUST/factory/SERIAL; {INSTEAD}");
        };
        let id: FactoryId =
            uri.parse().with_context(|| format!("the certificate is not from a factory; {INSTEAD}"))?;
        let identity = provision::Identity::Factory(issued(identity));
        Ok(Self { identity, name: id.device_name(), words: id.to_string() })
    }

    fn pairing(token: &PairingToken, trust_domain: &str) -> Result<Self> {
        // Any serial would do: it is refused for its trust domain alone.
        FactoryId::new(trust_domain, "0").with_context(|| {
            format!("--trust-domain {trust_domain:?} is none; {TRUST_DOMAIN} is the usual one")
        })?;
        let words = format!("pairing token {} for the trust domain {trust_domain}", token.id());
        let (token, name) = (token.reveal().to_string(), token.id().to_string());
        let trust_domain = trust_domain.to_owned();
        Ok(Self { identity: provision::Identity::Pairing { token, trust_domain }, name, words })
    }
}

fn token(arguments: &Args) -> Result<Option<String>> {
    match (&arguments.pairing_token, &arguments.pairing_token_file) {
        (Some(token), _) => Ok(Some(token.clone())),
        (None, None) => Ok(None),
        (None, Some(path)) => {
            let mut text = String::new();
            let read = if path.as_os_str() == "-" {
                std::io::stdin().take(TOKEN_FILE_BYTES_MAX).read_to_string(&mut text)
            } else {
                File::open(path).and_then(|file| file.take(TOKEN_FILE_BYTES_MAX).read_to_string(&mut text))
            };
            read.with_context(|| format!("can't read the pairing token from {}", path.display()))?;
            Ok(Some(text))
        }
    }
}

fn issued(identity: &Identity) -> Issued {
    Issued {
        chain: identity.chain().iter().map(|der| der.to_vec().into()).collect(),
        key: identity.key().secret_der().to_vec().into(),
    }
}

/// An identity with a fresh seed.
pub(crate) fn provision(
    board: &str,
    identity: provision::Identity,
    roots: &[rustls_pki_types::CertificateDer<'static>],
    gateways: Vec<String>,
    network: Network,
) -> Result<Provision> {
    let mut seed = [0; 32];
    OsRng.try_fill_bytes(&mut seed).context("this machine gives no random bytes")?;
    Ok(Provision {
        identity,
        services_roots: roots.iter().map(|der| der.to_vec().into()).collect(),
        gateways,
        seed: seed.into(),
        board: board.to_owned(),
        network,
    })
}

/// What became of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// It holds the identity now.
    New,
    /// It held it before, the seed apart, and was not touched.
    Kept,
}

/// Writes a board's data flash to a file that only its owner reads. Blocks that are not the identity's are holes, which
/// the firmware takes for what they are: nothing.
pub(crate) fn write_file(
    path: &Path,
    provision: &Provision,
    geometry: &Geometry,
    force: bool,
    keep_data: bool,
) -> Result<Written> {
    let image = encode(provision, geometry)?;
    let existing = match File::open(path) {
        Ok(file) => Some(file),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    if let Some(file) = existing {
        let mut region = Vec::new();
        let length = file.metadata().with_context(|| format!("reading {}", path.display()))?.len();
        file.take(geometry.identity_bytes().into())
            .read_to_end(&mut region)
            .with_context(|| format!("reading {}", path.display()))?;
        let whole = length == u64::from(geometry.flash_bytes);
        let held = decode(&region).ok().map(|held| Provision { seed: provision.seed, ..held });
        if whole && held.as_ref() == Some(provision) {
            return Ok(Written::Kept);
        }
        if !force {
            bail!(
                "{} is there and holds something else; give --force to replace it, or another --out",
                path.display()
            );
        }
        if keep_data {
            if !whole {
                bail!(
                    "{} has {length} bytes, the board's flash {}: there is no data to keep, leave --keep-data out",
                    path.display(),
                    geometry.flash_bytes
                );
            }
            // Keys stand in it, whoever made it.
            wasmbed_files::tighten(path)?;
            let mut file = OpenOptions::new().write(true).open(path)?;
            file.write_all(&image).and_then(|()| file.sync_all())?;
            return Ok(Written::New);
        }
    }
    write_new(path, &image, geometry).with_context(|| format!("writing {}", path.display()))?;
    Ok(Written::New)
}

/// Beside it first, so that there is never half an image. A temporary file is its owner's alone from the beginning.
fn write_new(path: &Path, image: &[u8], geometry: &Geometry) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(image)?;
    file.as_file().set_len(geometry.flash_bytes.into())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

fn network(arguments: &Args) -> Result<Network> {
    let Some(address) = &arguments.address else { return Ok(Network::Dhcp) };
    let parsed = address.split_once('/').and_then(|(address, bits)| {
        Some((address.parse::<Ipv4Addr>().ok()?, bits.parse::<u8>().ok().filter(|bits| *bits <= 32)?))
    });
    let (address, prefix) =
        parsed.with_context(|| format!("--address {address:?} is not like 192.168.1.20/24"))?;
    Ok(Network::Static {
        address: address.octets(),
        prefix,
        router: arguments.router.map(|router| router.octets()),
        dns: arguments.dns.iter().map(Ipv4Addr::octets).collect(),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use wasmbed_pki::{Authorities, FactoryAuthority};

    use super::*;

    const TOKEN: &str = "0a1b2c3d.000102030405060708090a0b0c0d0e0f";

    fn arguments(more: &[&str]) -> Result<Args, clap::Error> {
        use clap::Parser;
        #[derive(Parser)]
        struct Line {
            #[command(flatten)]
            arguments: Args,
        }
        let base = ["provision", "--board", "mps2-an385", "--gateway", "host:1", "--out", "x"];
        Line::try_parse_from(base.iter().chain(more)).map(|line| line.arguments)
    }

    fn device(folder: &Path) -> Provision {
        let authority = Authorities::create_or_open(folder, "wasmbed.local").unwrap();
        let identity = authority.issue_device("default", "board-1").unwrap();
        let roots = [authority.services_root().clone()];
        let identity = Chosen::operational(&identity).unwrap().identity;
        provision("riscv32-virt", identity, &roots, vec!["10.0.2.2:7443".into()], Network::Dhcp).unwrap()
    }

    #[test]
    fn an_image_is_written_once_and_replaced_only_when_told() {
        let folder = tempfile::tempdir().unwrap();
        let (path, geometry) = (folder.path().join("flash.img"), wasmbed_board_data::RISCV32_VIRT.geometry);
        let first = device(folder.path());
        assert_eq!(write_file(&path, &first, &geometry, false, false).unwrap(), Written::New);
        let metadata = path.metadata().unwrap();
        assert_eq!(metadata.len(), u64::from(geometry.flash_bytes));
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        let image = std::fs::read(&path).unwrap();
        assert_eq!(decode(&image[..geometry.identity_bytes() as usize]).unwrap(), first);

        let again = Provision { seed: [9; 32].into(), ..first.clone() };
        assert_eq!(write_file(&path, &again, &geometry, false, false).unwrap(), Written::Kept);
        let other = device(folder.path());
        let refused = write_file(&path, &other, &geometry, false, false).unwrap_err().to_string();
        assert!(refused.contains("--force"), "{refused}");
        assert_eq!(std::fs::read(&path).unwrap(), image);

        let last = geometry.flash_bytes as usize - 1;
        let mut used = image;
        used[last] = 7;
        std::fs::write(&path, &used).unwrap();
        assert_eq!(write_file(&path, &other, &geometry, true, true).unwrap(), Written::New);
        assert_eq!(std::fs::read(&path).unwrap()[last], 7, "data is kept");
        assert_eq!(write_file(&path, &first, &geometry, true, false).unwrap(), Written::New);
        assert_eq!(std::fs::read(&path).unwrap()[last], 0, "data is gone");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn arguments_become_a_network() {
        assert_eq!(network(&arguments(&[]).unwrap()).unwrap(), Network::Dhcp);
        let parsed = arguments(&["--address", "10.1.2.3/16", "--router", "10.1.0.1", "--dns", "9.9.9.9"]);
        let expected = Network::Static {
            address: [10, 1, 2, 3],
            prefix: 16,
            router: Some([10, 1, 0, 1]),
            dns: vec![[9, 9, 9, 9]],
        };
        assert_eq!(network(&parsed.unwrap()).unwrap(), expected);
        let error = network(&arguments(&["--address", "10.1.2.3"]).unwrap()).unwrap_err();
        assert!(error.to_string().contains("192.168.1.20/24"));
        assert!(arguments(&["--router", "10.1.0.1"]).is_err(), "a router without an address");
    }

    #[test]
    fn a_board_is_given_one_of_three_identities() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let authorities = Authorities::create_or_open(folder.path(), "example.org").unwrap();
        authorities.issue_device("default", "board-1").unwrap().write(folder.path(), "device").unwrap();
        let factory = FactoryAuthority::create_or_open(folder.path(), "example.org").unwrap();
        factory.issue("SN_42").unwrap().write(folder.path(), "factory").unwrap();
        std::fs::write(file("token"), format!("{TOKEN}\n")).unwrap();
        let chosen = |more: &[&str]| Chosen::of(&arguments(more).unwrap());

        let device =
            chosen(&["--cert-file", &file("device.crt"), "--key-file", &file("device.key")]).unwrap();
        assert_eq!(device.words, "spiffe://example.org/ns/default/device/board-1");
        assert!(matches!(device.identity, provision::Identity::Operational(_)));

        let factory = |chain: &str, key: &str| {
            chosen(&["--factory-cert-file", &file(chain), "--factory-key-file", &file(key)])
        };
        let made = factory("factory.crt", "factory.key").unwrap();
        assert_eq!((&*made.words, &*made.name), ("spiffe://example.org/factory/SN_42", "sn-42"));
        assert!(matches!(made.identity, provision::Identity::Factory(_)));
        let error = format!("{:#}", factory("device.crt", "device.key").err().unwrap());
        assert!(error.contains("is not from a factory; issue one with wasmbed pki issue factory"), "{error}");
        let error =
            chosen(&["--cert-file", &file("factory.crt"), "--key-file", &file("factory.key")]).err().unwrap();
        assert!(format!("{error:#}").contains("give a factory's by --factory-cert-file"), "{error:#}");

        for given in [["--pairing-token", TOKEN], ["--pairing-token-file", &file("token")]] {
            let token = chosen(&[&given[..], &["--trust-domain", "example.org"]].concat()).unwrap();
            assert_eq!(token.words, "pairing token 0a1b2c3d for the trust domain example.org");
            let expected = provision::Identity::Pairing {
                token: TOKEN.to_owned(),
                trust_domain: "example.org".to_owned(),
            };
            assert!(token.identity == expected);
        }
    }

    #[test]
    fn identities_that_can_not_be_used_say_what_to_do() {
        let chosen = |more: &[&str]| format!("{:#}", Chosen::of(&arguments(more).unwrap()).err().unwrap());
        let error = chosen(&["--pairing-token", &TOKEN[1..]]);
        assert!(error.contains("wasmbed devices pair makes one"), "{error}");
        assert!(error.contains("8 hex digits, a dot and 32 hex digits"), "{error}");
        assert!(!error.contains(&TOKEN[9..]), "a token with a slip is no less secret: {error}");
        let error = chosen(&["--pairing-token", TOKEN, "--trust-domain", "a/b"]);
        assert!(error.contains("--trust-domain \"a/b\" is none"), "{error}");
        let error = chosen(&["--pairing-token-file", "none"]);
        assert!(error.contains("can't read the pairing token from none"), "{error}");
        for contradiction in [
            &["--factory-cert-file", "a"][..],
            &["--factory-key-file", "a"],
            &["--factory-cert-file", "a", "--factory-key-file", "b", "--pairing-token", TOKEN],
            &["--pairing-token", TOKEN, "--pairing-token-file", "a"],
        ] {
            assert!(arguments(contradiction).is_err(), "{contradiction:?}");
        }
    }
}
