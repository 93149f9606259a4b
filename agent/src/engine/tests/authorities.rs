//! A new certificate authority: believed only when the pinned one vouches for it.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use shared::time::Timestamp;

use super::*;

type Ca = CertifiedIssuer<'static, KeyPair>;

fn params(minute: u64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Board");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let begin = Timestamp::from_micros(1_764_000_000_000_000);
    params.not_before = begin.after(Duration::from_secs(60 * minute)).to_datetime();
    params
}

fn ca() -> Ca {
    CertifiedIssuer::self_signed(params(0), KeyPair::generate().unwrap()).unwrap()
}

/// `from` vouches for `to`, at this minute.
fn announced(from: &Ca, to: &Ca, minute: u64) -> NewCa {
    let proof = params(minute).signed_by(to.key(), from).unwrap();
    NewCa { certificate: to.der().to_vec(), issuer: from.der().to_vec(), proof: proof.der().to_vec() }
}

fn pin(ca: &Ca) -> Pin {
    Pin::of(ca.der()).unwrap()
}

fn pinning(ca: &Ca, next: Option<&NextCa>) -> Engine {
    let mut engine = engine();
    engine.trust(Trust::new(pin(ca), next.cloned()));
    engine
}

fn tell(engine: &mut Engine, ca: &NewCa) -> Vec<Effect> {
    engine.on(Event::Frame(FromBoard::Ca(ca.clone())), Instant::now())
}

fn acknowledged(effects: &[Effect], ca: &Ca) -> bool {
    matches!(effects, [Effect::Report(ReportBody::CaPinned { pin: said })] if said == pin(ca).as_bytes())
}

fn refused(effects: &[Effect]) -> &str {
    match effects {
        [Effect::Refuse(refused)] => &refused.reason,
        other => panic!("it is not refused: {other:?}"),
    }
}

#[test]
fn the_pinned_one_vouches_for_the_next_which_is_kept_before_the_board_is_told() {
    let (old, new) = (ca(), ca());
    let news = announced(&old, &new, 1);
    let mut engine = pinning(&old, None);
    let effects = tell(&mut engine, &news);
    let [Effect::KeepCa(kept), Effect::Report(ReportBody::CaPinned { pin: said })] = effects.as_slice()
    else {
        panic!("{effects:?}")
    };
    assert_eq!((kept.certificate.as_slice(), said.as_slice()), (&**new.der(), &pin(&new).as_bytes()[..]));
    assert!(acknowledged(&tell(&mut engine, &news), &new), "known: only said again");

    // Killed between keeping it and saying so: the next start knows it, and the board tells again.
    let mut engine = pinning(&old, Some(kept));
    assert!(acknowledged(&tell(&mut engine, &news), &new));
    // Killed before it was kept: nothing happened.
    assert_eq!(tell(&mut pinning(&old, None), &news).len(), 2);
    // Gone over to it: the announcement that led there changes nothing any more.
    assert!(acknowledged(&tell(&mut pinning(&new, None), &news), &new));
}

#[test]
fn whom_the_pinned_one_does_not_vouch_for_is_refused() {
    let (old, new, stranger) = (ca(), ca(), ca());
    let good = announced(&old, &new, 1);
    let strangers = announced(&stranger, &new, 1);
    assert!(refused(&tell(&mut pinning(&old, None), &strangers)).contains("another one than this device"));
    let cases = [
        NewCa { issuer: good.issuer.clone(), ..strangers.clone() },
        NewCa { certificate: stranger.der().to_vec(), ..good.clone() },
        NewCa { proof: good.certificate.clone(), ..good.clone() },
        NewCa { proof: Vec::new(), ..good.clone() },
        NewCa { certificate: b"nothing".to_vec(), ..good.clone() },
    ];
    for case in cases {
        assert!(refused(&tell(&mut pinning(&old, None), &case)).contains("authority"), "{case:?}");
    }
    // A device's certificate is signed by the pinned one too.
    let key = KeyPair::generate().unwrap();
    let mut leaf = params(1);
    leaf.is_ca = IsCa::ExplicitNoCa;
    let device = leaf.signed_by(&key, &old).unwrap();
    let own = CertifiedIssuer::self_signed(params(1), key).unwrap();
    let forged = NewCa { certificate: own.der().to_vec(), proof: device.der().to_vec(), ..good };
    assert!(refused(&tell(&mut pinning(&old, None), &forged)).contains("not an authority's"));
}

#[test]
fn an_older_announcement_again_is_ignored_and_a_newer_one_takes_its_place() {
    let (old, first, second) = (ca(), ca(), ca());
    let (earlier, later) = (announced(&old, &first, 1), announced(&old, &second, 2));
    let mut engine = pinning(&old, None);
    assert_eq!(tell(&mut engine, &earlier).len(), 2);
    assert_eq!(tell(&mut engine, &later).len(), 2, "a board that was restored begins again");
    assert!(refused(&tell(&mut engine, &earlier)).contains("older"));
    assert!(acknowledged(&tell(&mut engine, &later), &second));
    // From the second on, what the first authority says counts no more.
    assert!(refused(&tell(&mut pinning(&second, None), &earlier)).contains("another one"));
}
