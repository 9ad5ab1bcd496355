"""Compositional prompt ensemble (as WinCLIP; Section III-B): state words x templates, for the name of an object.

The normal text of a "magnetic tile" is the mean embedding of "a photo of a flawless magnetic tile.", "a cropped photo
of the magnetic tile without defect." and so on; the abnormal text that of "a photo of a damaged magnetic tile.", ...
"""

from collections.abc import Sequence

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


def prompt_ensemble(
    object_name: str,
    normal_states: Sequence[str] = NORMAL_STATES,
    abnormal_states: Sequence[str] = ABNORMAL_STATES,
    templates: Sequence[str] = TEMPLATES,
) -> tuple[list[str], list[str]]:
    """Normal and abnormal prompts of one object.

    Args:
        object_name: e.g. "steel surface".
        normal_states: phrases with one `{}` for the object's name.
        abnormal_states: as many.
        templates: sentences with one `{}` for the state.

    Returns:
        Two lists of equal length, states x templates.

    Raises:
        ValueError: for another number of abnormal than of normal states, and for a phrase without one `{}`.
    """
    if len(normal_states) != len(abnormal_states):
        raise ValueError(
            f"normal_states, abnormal_states: {len(normal_states)} and {len(abnormal_states)} phrases; give as many"
        )
    for phrase in (*normal_states, *abnormal_states, *templates):
        if phrase.count("{}") != 1:
            raise ValueError(f"prompt {phrase!r}: must hold {{}} once, where the object's name or the state goes")
    return tuple(  # type: ignore[return-value]
        [template.replace("{}", state.replace("{}", object_name)) for state in states for template in templates]
        for states in (normal_states, abnormal_states)
    )
