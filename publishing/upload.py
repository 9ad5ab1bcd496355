"""Publishes a repository: contents first, then one commit that makes them the new state."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import httpx2
import yaml
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, RepoCard, constants, get_token
from huggingface_hub.errors import HfHubHTTPError

from defect_hub._version import __version__
from defect_hub.publishing.hub import (
    ATTEMPTS,
    SAME_COMMAND,
    PublishError,
    ask,
    explained,
    log_no_queries,
    passes,
    reason,
    root_cause,
    wait,
)
from defect_hub.publishing.plan import (
    LocalFile,
    Plan,
    Remote,
    compare,
    download,
    lines,
    local_files,
    read_remote,
    shown_size,
)
from defect_hub.publishing.privacy import refuse_private
from defect_hub.publishing.staged import MANIFEST, NAME, REPO_ID, Repository, Staged

MAX_OPERATIONS = 100
"""Files of one commit, as the Hub recommends; more are a numbered series on a pull request, which is then merged."""
BATCH_BYTES = 10_000_000_000
"""Contents for which permission to upload is asked at once; it expires."""
PROPOSAL, SERIES = "Publish with defect-hub", "Publish with defect-hub, in parts"
"""Titles of pull requests; there is at most one open of each, which later runs go on with."""
OVERTAKEN = (409, 412)
"""Status codes of a commit that comes after somebody else's."""
Operation = CommitOperationAdd | CommitOperationDelete
Say = Callable[[str], None]


@dataclass(frozen=True)
class Target:
    """Where to publish.

    Attributes:
        repo_id: "namespace/name".
        revision: Branch; made from `main` if it is not there.
        private: Whether a new repository is seen by its owners alone.
        create_pr: Whether to propose the change as a pull request instead of making it.
        tag: Name for the resulting state, such as "v1.0.0".
    """

    repo_id: str
    revision: str = "main"
    private: bool = False
    create_pr: bool = False
    tag: str | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(REPO_ID, self.repo_id):
            raise PublishError(f"{self.repo_id!r} is no repository; give it as NAMESPACE/NAME")
        for name in (self.revision, self.tag):
            if name is not None and (not re.fullmatch(NAME, name) or ".." in name):
                raise PublishError(f"{name!r} is no name for a branch or tag; use letters, digits, '.', '-' and '_'")
        if self.create_pr and (self.tag or self.revision != "main"):
            raise PublishError("a pull request is made against main, and has no tag before it is merged")


@dataclass(frozen=True)
class _Job:
    """What the steps of a publication share."""

    api: HfApi
    staged: Staged
    local: Mapping[str, LocalFile]
    target: Target
    overwrite: bool
    max_operations: int

    @property
    def about(self) -> str:
        return f"{self.staged.repo_type} {self.target.repo_id}"

    @property
    def title(self) -> str:
        """Title of our pull request."""
        return PROPOSAL if self.target.create_pr else SERIES

    @property
    def kind(self) -> Repository:
        return {"repo_id": self.target.repo_id, "repo_type": self.staged.repo_type}

    def read(self, revision: str) -> tuple[Remote, Plan]:
        """What is at a revision, and what has to change there."""
        remote = read_remote(self.api, self.kind, revision)
        return remote, self.plan(remote)

    def plan(self, remote: Remote) -> Plan:
        _refuse_changed(self)
        content = partial(download, self.api, self.kind, remote.head or "main")
        return compare(self.staged, self.local, remote, content)


def publish(
    staged: Staged,
    target: Target,
    *,
    dry_run: bool = False,
    overwrite: bool = False,
    max_operations: int = MAX_OPERATIONS,
    say: Say = print,
) -> str:
    """Make a repository of the Hub hold exactly these files, beside those that are not ours.

    Contents travel first and change nothing that anybody sees; a single commit then replaces the earlier state. An
    interrupted publication is repeated by the same call: what has arrived is not sent again. When nothing differs no
    commit is made.

    Args:
        staged: The files.
        target: Where they go.
        dry_run: Only say what would change; nothing is written, on the Hub or here.
        overwrite: Also replace files that were edited on the Hub, or that defect-hub never wrote.
        max_operations: Files of one commit.
        say: Takes the lines of the plan and of the result.

    Returns:
        Address of what was published: the repository's, or a pull request's.

    Raises:
        PublishError: A file holds private data, the Hub refuses or cannot be reached, or somebody else's work would be
            overwritten. The repository is then as it was, or complete.
    """
    log_no_queries()
    api = HfApi(library_name="defect-hub", library_version=__version__)
    job = _Job(api, staged, local_files(staged), target, overwrite, max_operations)
    if not dry_run and not constants.is_offline_mode() and get_token() is None:
        raise PublishError("there is no access token; log in with `hf auth login`, or set HF_TOKEN")
    try:
        branch, remote, plan = _state(job, dry_run)
        _tell(job, branch, remote, plan, say)
        _check(job, remote, plan)
        refuse_private(staged.files, [path for path in plan.sent if path in staged.files])
        if remote.asked:
            _validate_card(job)
        if dry_run:
            say("nothing was sent (--dry-run)")
            return _address(job)
        return _carry_out(job, branch, remote, plan, say)
    except (HfHubHTTPError, httpx2.TransportError) as error:
        raise explained(error, job.about) from error


def _state(job: _Job, dry_run: bool) -> tuple[str, Remote, Plan]:
    """The branch to commit to, what is there, and what has to change."""
    if dry_run and constants.is_offline_mode():
        remote = Remote(asked=False)
        return job.target.revision, remote, job.plan(remote)
    branch = job.target.revision
    remote, plan = job.read(branch)
    if remote.exists and remote.head is None:
        remote, plan = job.read("main")  # Which the new branch will start from.
    if remote.exists and (job.target.create_pr or _parts(plan, job) > 1):
        proposal = _own_pull_request(job)
        if proposal:
            return proposal, *job.read(proposal)
    return branch, remote, plan


def _own_pull_request(job: _Job) -> str | None:
    """Reference of the open pull request that an earlier run made."""
    open_ones = partial(
        job.api.get_repo_discussions, **job.kind, discussion_type="pull_request", discussion_status="open"
    )
    author = ask(job.api.whoami, job.about)["name"] if get_token() else None
    for found in ask(lambda: list(open_ones()), job.about):
        if found.author == author and found.title == job.title:
            return found.git_reference
    return None


def _tell(job: _Job, branch: str, remote: Remote, plan: Plan, say: Say) -> None:
    """Say what is going to change."""
    target = job.target
    if not remote.asked:
        state = "the Hub is not asked, HF_HUB_OFFLINE is set"
    elif not remote.exists:
        state = "new, " + ("private" if target.private else "public")
    else:
        state = f"{'private' if remote.private else 'public'}, {branch} at {(remote.head or '')[:7]}"
    say(f"{job.about} ({state})")
    for line in (*lines(plan, job.local, remote), *(f"  {note}" for note in job.staged.notes)):
        say(line)
    if target.tag:
        say(f"  tag {target.tag}" + (" is there already" if target.tag in remote.tags else ""))
    size = sum(job.local[path].size for path in plan.sent)
    if plan.is_done:
        say("  nothing to change")
        return
    parts = _parts(plan, job)
    way = "a pull request" if target.create_pr else "one commit" if parts == 1 else f"{parts} commits, merged at once"
    say(f"  to send: {len(plan.sent)} ({shown_size(size)}), to remove: {len(plan.removed)}, in {way}")


def _check(job: _Job, remote: Remote, plan: Plan) -> None:
    """Raise a `PublishError` where the plan does not do what the user means."""
    target = job.target
    if plan.foreign and not job.overwrite:
        named = ", ".join(plan.foreign[:5]) + (", ..." if len(plan.foreign) > 5 else "")
        if not remote.manifest:
            raise PublishError(
                f"{job.about}: was not published by defect-hub, and {named} would be replaced or removed; "
                "is this the right repository? Then give --overwrite"
            )
        raise PublishError(
            f"{job.about}: {named}: edited on the Hub, or written by others; bring the edit into what you publish "
            "(docs/publishing.md), or give --overwrite to lose it"
        )
    if target.private and remote.exists and not remote.private:
        raise PublishError(f"{job.about}: is public already; make it private in its settings on the Hub first")
    tagged = remote.tags.get(target.tag or "")
    if tagged and (tagged != remote.head or not plan.is_done):
        raise PublishError(f"{job.about}: tag {target.tag} names another state; tags are not moved, choose a new one")
    if target.revision in remote.tags:
        raise PublishError(f"{job.about}: {target.revision} is a tag, and tags are not moved; name a branch")
    if _parts(plan, job) > 1 and target.revision != "main":
        raise PublishError(
            f"{job.about}: more than {job.max_operations} files change, which takes several commits; publish to main"
        )


def _carry_out(job: _Job, branch: str, remote: Remote, plan: Plan, say: Say) -> str:
    """Create what is missing, send, commit, tag."""
    if not remote.exists:
        ask(
            partial(
                job.api.create_repo, **job.kind, private=job.target.private, space_sdk=_space_sdk(job), exist_ok=True
            ),
            job.about,
        )
        remote, plan = job.read("main")
        _check(job, remote, plan)  # Somebody else may have created it at the same time.
    if branch != "main" and not branch.startswith("refs/pr/"):
        ask(partial(job.api.create_branch, **job.kind, branch=branch, exist_ok=True), job.about)
        remote, plan = job.read(branch)
    branch, head = _send(job, branch, remote, plan)
    if branch.startswith("refs/pr/") and not job.target.create_pr:
        head = _merge(job, int(branch.rpartition("/")[2]))
    if job.target.tag:
        _tag(job, job.target.tag, head)
    address = _address(job)
    if branch.startswith("refs/pr/") and job.target.create_pr:
        address += f"/discussions/{branch.rpartition('/')[2]}"
    say(f"{address} {'was complete' if plan.is_done else 'is complete'}, at {head[:7]}")
    return address


def _validate_card(job: _Job) -> None:
    """Let the Hub check the front matter before anything is sent.

    Raises:
        PublishError: The card is not valid.
    """
    try:
        card = RepoCard(_card(job), ignore_metadata_errors=False)
        ask(partial(card.validate, job.staged.repo_type), f"{job.about}: README.md")
    except PublishError:
        raise
    except (ValueError, yaml.YAMLError) as error:
        raise PublishError(f"{job.about}: README.md: {' '.join(str(error).split())}: correct the card") from error


def _space_sdk(job: _Job) -> str | None:
    """What a new Space runs on, by its card; None for other kinds of repository."""
    return RepoCard(_card(job)).data.get("sdk") if job.staged.repo_type == "space" else None


def _card(job: _Job) -> str:
    content = job.local["README.md"].content
    return (content if isinstance(content, bytes) else content.read_bytes()).decode()


def _send(job: _Job, branch: str, remote: Remote, plan: Plan) -> tuple[str, str]:
    """Commit until nothing is left to do; each round looks at what is there, so that no lost answer matters.

    Returns:
        Branch or reference of the pull request, and its last commit.
    """
    parts, failures = _parts(plan, job), 0
    while not plan.is_done:
        part = f" (part {parts - _parts(plan, job) + 1} of {parts})" if parts > 1 else ""
        proposing = (job.target.create_pr or parts > 1) and not branch.startswith("refs/pr/")
        operations = list(_operations(job, plan))[: job.max_operations]
        _send_contents(job, operations, branch, proposing)
        _refuse_changed(job)
        try:
            done = job.api.create_commit(
                **job.kind,
                operations=operations,
                commit_message=job.title if proposing else job.staged.message + part,
                commit_description=job.staged.message + part if proposing else None,
                revision=branch,
                create_pr=proposing,
                parent_commit=remote.head,
            )
            failures = 0
            if proposing:
                branch = f"refs/pr/{done.pr_num}"
        except (HfHubHTTPError, httpx2.TransportError) as error:
            overtaken = isinstance(error, HfHubHTTPError) and error.response.status_code in OVERTAKEN
            failures += 1
            if not (passes(error) or overtaken) or failures == ATTEMPTS:
                raise explained(error, job.about) from error
            wait(error, failures - 1, f"{job.about}: commit")
            if proposing:
                branch = _own_pull_request(job) or branch
        left = len(plan.sent) + len(plan.removed)
        remote, plan = job.read(branch)
        if not failures and len(plan.sent) + len(plan.removed) >= left:
            problem = "the Hub took the commit and shows other files (a .gitignore there?)"
            raise PublishError(f"{job.about}: {problem}; look at {_address(job)}")
        _check(job, remote, plan)
    return branch, remote.head or ""


def _refuse_changed(job: _Job) -> None:
    """Raise a `PublishError` if a file is no longer the one that the manifest lists."""
    changed = next((path for path, file in job.local.items() if not file.is_unchanged), None)
    if changed:
        raise PublishError(f"{job.about}: {changed}: was changed or removed meanwhile; run the same command again")


def _operations(job: _Job, plan: Plan) -> Iterator[Operation]:
    """What to commit; card and manifest come last, so that they only describe what is there."""
    last = [path for path in plan.sent if path in ("README.md", MANIFEST)]
    first = [path for path in plan.sent if path not in last]
    yield from (_addition(path, job.local[path]) for path in first)
    yield from (CommitOperationDelete(path) for path in plan.removed)
    yield from (_addition(path, job.local[path]) for path in last)


def _addition(path: str, file: LocalFile) -> CommitOperationAdd:
    addition = CommitOperationAdd(path, file.content)
    addition.upload_info.sha256 = bytes.fromhex(file.sha256)  # Known already: a large file is read once less.
    return addition


def _send_contents(job: _Job, operations: Sequence[Operation], branch: str, proposing: bool) -> None:
    """Send the contents that the Hub has not got; small text files travel with the commit instead.

    One at a time: an interruption then costs no more than the one in flight.
    """
    try:
        for batch in _batches([item for item in operations if isinstance(item, CommitOperationAdd)]):
            job.api.preupload_lfs_files(
                job.target.repo_id,
                batch,
                repo_type=job.staged.repo_type,
                revision=branch,
                create_pr=proposing,
                num_threads=1,
                free_memory=False,
            )
    except (HfHubHTTPError, httpx2.TransportError) as error:
        raise explained(error, job.about) from error
    except ConnectionError as error:  # Of a Xet transfer, whose text holds addresses.
        raise PublishError(f"{job.about}: the connection broke off; {SAME_COMMAND}") from error
    except RuntimeError as error:  # In which huggingface_hub wraps what went wrong with one file.
        _refuse_changed(job)
        cause = root_cause(error)
        if not isinstance(cause, HfHubHTTPError | httpx2.TransportError):
            kind = type(cause).__name__  # Its text may hold addresses, as above.
            raise PublishError(f"{job.about}: the upload failed ({kind}); {SAME_COMMAND}") from error
        raise explained(error, f"{job.about}: {error}") from error


def _batches(additions: Sequence[CommitOperationAdd]) -> Iterator[list[CommitOperationAdd]]:
    batch: list[CommitOperationAdd] = []
    for addition in additions:
        if batch and sum(item.upload_info.size for item in batch) + addition.upload_info.size > BATCH_BYTES:
            yield batch
            batch = []
        batch.append(addition)
    if batch:
        yield batch


def _merge(job: _Job, number: int) -> str:
    """Merge our pull request; returns the new head of main."""
    for attempt in range(ATTEMPTS):
        try:
            job.api.merge_pull_request(job.target.repo_id, number, repo_type=job.staged.repo_type)
        except (HfHubHTTPError, httpx2.TransportError) as error:
            if isinstance(error, HfHubHTTPError) and error.response.status_code in OVERTAKEN:
                remedy = f"close it at {_address(job)}/discussions/{number}, and run the same command again"
                raise PublishError(f"{job.about}: pull request {number}: {reason(error)}: {remedy}") from error
            if not passes(error) or attempt + 1 == ATTEMPTS:
                raise explained(error, f"{job.about}: pull request {number}") from error
            wait(error, attempt, f"{job.about}: merge")
        remote, plan = job.read("main")
        if plan.is_done and remote.head:
            return remote.head
    raise PublishError(f"{job.about}: pull request {number} cannot be merged; look at {_address(job)}/discussions")


def _tag(job: _Job, tag: str, commit: str) -> None:
    """Make a tag, unless an earlier attempt did so."""
    ask(partial(job.api.create_tag, **job.kind, tag=tag, revision=commit, exist_ok=True), job.about)
    refs = ask(partial(job.api.list_repo_refs, **job.kind), job.about)
    if commit not in [found.target_commit for found in refs.tags if found.name == tag]:
        raise PublishError(f"{job.about}: is complete, but the tag {tag} could not be made; {SAME_COMMAND}")


def _parts(plan: Plan, job: _Job) -> int:
    """Number of commits that the plan takes."""
    return -(-(len(plan.sent) + len(plan.removed)) // job.max_operations)


def _address(job: _Job) -> str:
    prefix = "" if job.staged.repo_type == "model" else f"{job.staged.repo_type}s/"
    return f"{job.api.endpoint}/{prefix}{job.target.repo_id}"
