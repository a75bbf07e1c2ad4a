//! Language codes of media files (ISO 639-2, both of its kinds) as BCP 47 tags.

/// ISO 639-2 codes and the ISO 639-1 code that BCP 47 wants instead (RFC 5646 §2.2.1: "When languages have both an ISO
/// 639-1 two-character code and a three-character code […], only the ISO 639-1 two-character code is defined").
const TWO_LETTERS: &str = "\
    aar=aa abk=ab afr=af aka=ak alb=sq amh=am ara=ar arg=an arm=hy asm=as ava=av ave=ae aym=ay aze=az bak=ba bam=bm baq=eu \
    bel=be ben=bn bih=bh bis=bi bod=bo bos=bs bre=br bul=bg bur=my cat=ca ces=cs cha=ch che=ce chi=zh chu=cu chv=cv cor=kw \
    cos=co cre=cr cym=cy cze=cs dan=da deu=de div=dv dut=nl dzo=dz ell=el eng=en epo=eo est=et eus=eu ewe=ee fao=fo fas=fa \
    fij=fj fin=fi fra=fr fre=fr fry=fy ful=ff geo=ka ger=de gla=gd gle=ga glg=gl glv=gv gre=el grn=gn guj=gu hat=ht hau=ha \
    heb=he her=hz hin=hi hmo=ho hrv=hr hun=hu hye=hy ibo=ig ice=is ido=io iii=ii iku=iu ile=ie ina=ia ind=id ipk=ik isl=is \
    ita=it jav=jv jpn=ja kal=kl kan=kn kas=ks kat=ka kau=kr kaz=kk khm=km kik=ki kin=rw kir=ky kom=kv kon=kg kor=ko kua=kj \
    kur=ku lao=lo lat=la lav=lv lim=li lin=ln lit=lt ltz=lb lub=lu lug=lg mac=mk mah=mh mal=ml mao=mi mar=mr may=ms mkd=mk \
    mlg=mg mlt=mt mon=mn mri=mi msa=ms mya=my nau=na nav=nv nbl=nr nde=nd ndo=ng nep=ne nld=nl nno=nn nob=nb nor=no nya=ny \
    oci=oc oji=oj ori=or orm=om oss=os pan=pa per=fa pli=pi pol=pl por=pt pus=ps que=qu roh=rm ron=ro rum=ro run=rn rus=ru \
    sag=sg san=sa sin=si slk=sk slo=sk slv=sl sme=se smo=sm sna=sn snd=sd som=so sot=st spa=es sqi=sq srd=sc srp=sr ssw=ss \
    sun=su swa=sw swe=sv tah=ty tam=ta tat=tt tel=te tgk=tg tgl=tl tha=th tib=bo tir=ti ton=to tsn=tn tso=ts tuk=tk tur=tr \
    twi=tw uig=ug ukr=uk urd=ur uzb=uz ven=ve vie=vi vol=vo wel=cy wln=wa wol=wo xho=xh yid=yi yor=yo zha=za zho=zh zul=zu";

/// A tag for `code`, which is what a file says: two or three letters, or a BCP 47 tag already; "und" for anything else.
pub(crate) fn bcp47(code: &str) -> String {
    let (language, rest) = code.split_at(code.find('-').unwrap_or(code.len()));
    let language = language.to_ascii_lowercase();
    let well_formed =
        rest.split('-').skip(1).all(|part| (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric()));
    let letters = (2..=3).contains(&language.len()) && language.bytes().all(|b| b.is_ascii_lowercase());
    if !letters || !well_formed || language == "und" {
        return "und".to_owned();
    }
    let short = TWO_LETTERS.split_whitespace().find_map(|pair| pair.strip_prefix(&language)?.strip_prefix('='));
    format!("{}{rest}", short.unwrap_or(&language))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_become_the_shortest_tag() {
        for (code, tag) in [
            ("eng", "en"),
            ("GER", "de"),
            ("deu", "de"),
            ("de", "de"),
            ("fil", "fil"),
            ("pt-BR", "pt-BR"),
            ("por-BR", "pt-BR"),
            ("und", "und"),
            ("", "und"),
            ("english", "und"),
            ("e\"n", "und"),
            ("en-", "und"),
            ("en-a b", "und"),
        ] {
            assert_eq!(bcp47(code), tag, "{code}");
        }
    }
}
