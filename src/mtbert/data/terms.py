"""The terms under which datasets come; for those not named here none are known."""

TERMS = {"quora": "Quora's own terms (non-commercial)", "sick": "CC BY-NC-SA"}
