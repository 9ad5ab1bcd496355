"""Compositional prompt ensemble: state words x templates, per object name (as WinCLIP, used by Section III-B)."""

NORMAL_STATES = (
    "{}",
    "flawless {}",
    "perfect {}",
    "unblemished {}",
    "{} without defect",
    "{} without damage",
)
ABNORMAL_STATES = (
    "damaged {}",
    "broken {}",
    "defective {}",
    "{} with flaw",
    "{} with defect",
    "{} with damage",
)
TEMPLATES = (
    "a photo of a {}.",
    "a cropped photo of the {}.",
    "a close-up photo of a {}.",
    "a photo of the {} for visual inspection.",
)


def prompt_ensemble(object_name: str) -> tuple[list[str], list[str]]:
    """Normal and abnormal prompts of one object.

    Args:
        object_name: e.g. "steel surface".

    Returns:
        Two lists of equal length, states x templates.
    """
    return tuple(  # type: ignore[return-value]
        [template.format(state.format(object_name)) for state in states for template in TEMPLATES]
        for states in (NORMAL_STATES, ABNORMAL_STATES)
    )
