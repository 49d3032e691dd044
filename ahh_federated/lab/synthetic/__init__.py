"""Synthetic Antwerp: 20,000 children drawn from published figures, spread over eight partners.

No row is, or was derived from, a child.  The cohort exists so that a study can be written, priced, run and
compared with the pooled truth before any real table is asked for.  What is drawn: family and birth, BMI at 2
years, BMI at 6 years; then, per partner, who is known, what is missing and what is mistyped.

Target and what `antwerp_children()` achieves (20,000 children, seed 2026, pooled over the partners' tables;
the source of each target is in `checks.TARGETS`, of each constant in `constants`):

    quantity                                          target  achieved
    overweight incl. obesity at 2 y, %                  11.1      11.1
    overweight at 2 y, girls, %                         11.4      11.8
    overweight at 2 y, boys, %                          10.8      10.4
    obesity at 2 y, %                                    1.7       1.7
    overweight incl. obesity at 6 y, %                  14.1      13.9
    obesity at 6 y, %                                    2.5       2.8
    correlation of BMI z-scores, 2 and 6 y              0.60      0.58
    odds ratio at 2 y, mother not Belgian at birth      1.75      1.86
    odds ratio at 2 y, deprived                         1.80      1.92
    mother not Belgian at birth, %                      53.0      53.2
    deprived, %                                         26.0      26.3
    of the deprived, mother not Belgian at birth, %     74.0      74.5
    mother does not speak Dutch to the newborn, %       57.0      57.0
    preterm, %                                           7.9       8.1
    breastfed on day 6, %                               77.0      77.0
    mother overweight (BMI 25 to 30), %                 26.4      26.9
    mother obese (BMI 30 and above), %                  15.7      15.0
    smoked in pregnancy, %                               6.5       6.4
    smoked in pregnancy, of the deprived, %             15.0      14.3
    median birth weight of girls, kg                    3.30      3.30
    median birth weight of boys, kg                     3.50      3.50
    SD of birth weight at term, kg                      0.45      0.45

Held-out AUROC of a pooled logistic regression for overweight at 6 years: 0.82 with the BMI at 2 years (target
.80-.83), 0.67 without (target .63-.68), as published models reach (SLOPE, BMC Medicine 2020: .83 and
.64-.66). A higher figure would be a leak.
"""

from ahh_federated.lab.synthetic.files import antwerp_children, write_partners

__all__ = ["antwerp_children", "write_partners"]
