"""Which tasks of lm-evaluation-harness measure a language: names as in its version 0.4.13.

Only multiple-choice tasks, which small models answer above chance at all: reading (belebele), inference (xnli),
commonsense (xcopa, xstorycloze, hellaswag, ...), knowledge (mmlu in translations), grammar (multiblimp). A test
compares every name with the installed harness.
"""

from langgraft.errors import InputError
from langgraft.text import language

# Code: task names, general ones first; knowledge last, since small models are at chance there.
_TABLE = """
ar   belebele_arb_Arab xnli_ar xstorycloze_ar multiblimp_arb hellaswag_ar arc_ar m_mmlu_ar
bg   belebele_bul_Cyrl xnli_bg multiblimp_bul
bn   belebele_ben_Beng multiblimp_ben hellaswag_bn arc_bn m_mmlu_bn
ca   belebele_cat_Latn xnli_ca xstorycloze_ca multiblimp_cat hellaswag_ca m_mmlu_ca
cs   belebele_ces_Latn multiblimp_ces
da   belebele_dan_Latn multiblimp_dan hellaswag_da arc_da m_mmlu_da
de   belebele_deu_Latn xnli_de paws_de multiblimp_deu hellaswag_de arc_de m_mmlu_de
el   belebele_ell_Grek xnli_el multiblimp_ell
en   belebele_eng_Latn xnli_en xstorycloze_en lambada_openai hellaswag arc_easy arc_challenge blimp mmlu
es   belebele_spa_Latn xnli_es xstorycloze_es paws_es multiblimp_spa hellaswag_es arc_es m_mmlu_es
et   belebele_est_Latn xcopa_et multiblimp_est
eu   belebele_eus_Latn xnli_eu xcopa_eu xstorycloze_eu multiblimp_eus hellaswag_eu m_mmlu_eu
fa   belebele_pes_Arab multiblimp_fas
fi   belebele_fin_Latn multiblimp_fin
fr   belebele_fra_Latn xnli_fr paws_fr multiblimp_fra hellaswag_fr arc_fr m_mmlu_fr
gu   belebele_guj_Gujr multiblimp_guj hellaswag_gu arc_gu m_mmlu_gu
he   belebele_heb_Hebr multiblimp_heb
hi   belebele_hin_Deva xnli_hi xstorycloze_hi multiblimp_hin hellaswag_hi arc_hi m_mmlu_hi
ht   belebele_hat_Latn xcopa_ht
hu   belebele_hun_Latn multiblimp_hun hellaswag_hu arc_hu m_mmlu_hu
hy   belebele_hye_Armn multiblimp_hye hellaswag_hy arc_hy m_mmlu_hy
id   belebele_ind_Latn xcopa_id xstorycloze_id hellaswag_id arc_id m_mmlu_id
it   belebele_ita_Latn xcopa_it multiblimp_ita hellaswag_it arc_it m_mmlu_it
ja   belebele_jpn_Jpan ja_leaderboard_jcommonsenseqa ja_leaderboard_jnli ja_leaderboard_xwinograd paws_ja
kn   belebele_kan_Knda hellaswag_kn arc_kn m_mmlu_kn
ko   belebele_kor_Hang paws_ko
ml   belebele_mal_Mlym hellaswag_ml arc_ml m_mmlu_ml
mr   belebele_mar_Deva multiblimp_mar hellaswag_mr arc_mr m_mmlu_mr
my   belebele_mya_Mymr xstorycloze_my
ne   belebele_npi_Deva hellaswag_ne arc_ne m_mmlu_ne
nl   belebele_nld_Latn multiblimp_nld hellaswag_nl arc_nl m_mmlu_nl
pt   belebele_por_Latn multiblimp_por hellaswag_pt arc_pt m_mmlu_pt
ro   belebele_ron_Latn multiblimp_ron hellaswag_ro arc_ro m_mmlu_ro
ru   belebele_rus_Cyrl xnli_ru xstorycloze_ru multiblimp_rus hellaswag_ru arc_ru m_mmlu_ru
sv   belebele_swe_Latn multiblimp_swe hellaswag_sv arc_sv m_mmlu_sv
sw   belebele_swh_Latn xnli_sw xcopa_sw xstorycloze_sw
ta   belebele_tam_Taml xcopa_ta multiblimp_tam hellaswag_ta arc_ta m_mmlu_ta
te   belebele_tel_Telu xstorycloze_te hellaswag_te arc_te m_mmlu_te
th   belebele_tha_Thai xnli_th xcopa_th
tr   belebele_tur_Latn xnli_tr xcopa_tr multiblimp_tur
uk   belebele_ukr_Cyrl multiblimp_ukr hellaswag_uk arc_uk m_mmlu_uk
ur   belebele_urd_Arab xnli_ur multiblimp_urd
vi   belebele_vie_Latn xnli_vi xcopa_vi hellaswag_vi arc_vi m_mmlu_vi
yue  belebele_zho_Hant tmmluplus
zh   belebele_zho_Hans xnli_zh xcopa_zh xstorycloze_zh paws_zh cmmlu
"""
TASKS: dict[str, tuple[str, ...]] = {
    code: tuple(names) for code, *names in (line.split() for line in _TABLE.strip().splitlines())
}
"""Language code -> names. Cantonese has none of its own there: written Chinese (Taiwan) is measured, and `langgraft`
brings task files for Cantonese and Persian sets (see `langgraft.evaluation.tasks`)."""


def task_names(wanted: str, code: str) -> list[str]:
    """The tasks of a language for `auto`; otherwise the names given, separated by commas.

    Raises:
        InputError: the harness has no tasks for the language.
    """
    if wanted != "auto":
        return [name.strip() for name in wanted.split(",") if name.strip()]
    known = language(code)
    if known.code not in TASKS:
        raise InputError(
            f"lm-evaluation-harness has no tasks for {known.name} that langgraft knows of; name some with --tasks, or "
            "measure translation choice and continuation choice, which need no benchmark"
        )
    return list(TASKS[known.code])
