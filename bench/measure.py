"""The order of a run: grow the stack, time the commands in turn, look into single runs."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from bench.checkpoint import SMALLEST
from bench.figures import Profile, Sample, SizeFigures, Timing
from bench.generated import GeneratedProject, projects
from bench.images import Tagger
from bench.report import CREATE, KUBECTL, PREVIEW, TARGETED, UP, Circumstances, Results
from bench.workspace import CommandError, Workspace
from devcluster.progress import Progress

REAL_PODS = 2


def _counting() -> Iterator[str]:
    return (f"bench-change-{number:04}" for number in itertools.count(1))


@dataclass
class Measurement:
    """One stack that grows from size to size.

    Args:
        workspace: The program's copy.
        tagger: Makes the tags that the projects are given.
        progress: Is told every step.
        rounds: How often each command is timed.
    """

    workspace: Workspace
    tagger: Tagger
    progress: Progress
    rounds: int
    tags: dict[GeneratedProject, str] = field(default_factory=dict[GeneratedProject, str])
    _fresh: Iterator[str] = field(default_factory=_counting)

    @property
    def chosen(self) -> GeneratedProject:
        """The project that gets new tags; a back end."""
        return next(iter(self.tags))

    def size(self, count: int) -> SizeFigures:
        """Bring the stack to a size and time everything there."""
        created = self.grow(count)
        with self.progress.step(f"{count} projects: {self.rounds} rounds"):
            timings = self._rounds(with_preview=True)
        resources, state_bytes = self.workspace.state()
        return SizeFigures(count, resources, state_bytes, {**timings, **created})

    def pods(self) -> dict[str, Timing]:
        """Time the same release with real pods, then take them away again."""
        with self.progress.step(f"{REAL_PODS} real pods: {self.rounds} rounds"):
            self.workspace.declare({self.chosen: REAL_PODS}, self.tags)
            self.workspace.up()
            timings = self._rounds(with_preview=False)
            self.workspace.declare({self.chosen: 0}, self.tags)
            self.workspace.up()
        return timings

    def profiles(self) -> list[Profile]:
        """Look into one `pulumi up` and one with `--target`, at the present size."""
        count = len(self.tags)
        with self.progress.step(f"{count} projects: where the time goes"):
            found: list[Profile] = []
            for target in (None, self.chosen):
                self._declare_next_tag()
                found.append(self.workspace.profile(count, target))
            return found

    def startup(self) -> dict[str, Timing]:
        """Time the parts that every run begins with."""
        with self.progress.step(f"start of a run: {self.rounds} rounds"):
            self.workspace.startup()  # the first one writes Python's compiled files
            rounds = [self.workspace.startup() for _ in range(self.rounds)]
        return {name: Timing(tuple(each[name] for each in rounds)) for name in rounds[0]}

    def grow(self, count: int, *, proven: bool = True) -> dict[str, Timing]:
        """Add projects: by `pulumi up` where there is nothing to copy from yet, by a copied state afterwards.

        Args:
            count: Projects that the stack is to have.
            proven: Whether a preview of the whole stack proves that the copied state is right.
        """
        added = projects(count)[len(self.tags) :]
        copied = len(self.tags) >= SMALLEST
        with self.progress.step(f"{count} projects: {'copied state' if copied else 'pulumi up'} adds {len(added)}"):
            for project in added:
                self.tagger.tag(project.repository, project.first_tag)
                self.tags[project] = project.first_tag
            self.workspace.declare(dict.fromkeys(added, 0), self.tags)
            if not copied:
                return {CREATE: Timing((self.workspace.up(),))}
            self.workspace.adopt(added)
            if proven:
                self.workspace.preview()  # fails if the copied state is not what the program declares
        return {}

    def _rounds(self, *, with_preview: bool) -> dict[str, Timing]:
        """Time the commands in turn, so that a change of the machine's load hits all of them."""
        found: dict[str, list[Sample]] = {}
        for number in range(1, self.rounds + 1):
            self.progress.note(f"round {number}")
            if with_preview:
                found.setdefault(PREVIEW, []).append(self.workspace.preview())
            found.setdefault(UP, []).append(self._release())
            found.setdefault(KUBECTL, []).append(self.set_image(self.chosen))
            found.setdefault(TARGETED, []).append(self._release(self.chosen))
            found.setdefault(KUBECTL, []).append(self.set_image(self.chosen))
        return {command: Timing(tuple(samples)) for command, samples in found.items()}

    def _release(self, target: GeneratedProject | None = None) -> Sample:
        tag = self._declare_next_tag()
        sample = self.workspace.up(target)
        self.check_live(self.chosen, tag)
        return sample

    def set_image(self, project: GeneratedProject) -> Sample:
        """Time kubectl with a project's next tag."""
        tag = next(self._fresh)
        digest = self.tagger.tag(project.repository, tag)
        sample = self.workspace.set_image(project, f"{project.repository}:{tag}@{digest}")
        self.check_live(project, tag)
        return sample

    def next_tag(self) -> str:
        """Return a tag of the chosen project that nothing has run yet."""
        tag = next(self._fresh)
        self.tagger.tag(self.chosen.repository, tag)
        return tag

    def _declare_next_tag(self) -> str:
        """Write a tag into the stack file that nothing has run yet, and return it.

        Written here and not by `pulumi up --config-path --config`, which replaces the whole map of tags.
        """
        tag = self.next_tag()
        self.tags[self.chosen] = tag
        self.workspace.declare({}, self.tags)
        return tag

    def check_live(self, project: GeneratedProject, tag: str) -> None:
        """Make sure that a command that was timed did its work.

        Raises:
            CommandError: The Deployment runs something else.
        """
        image = self.workspace.live_image(project)
        if f":{tag}@" not in image:
            raise CommandError(f"the command ended well, but {project.deployment} runs {image} and not {tag}")


def measure(measurement: Measurement, sizes: Sequence[int], about: Circumstances, *, pods: bool) -> Iterator[Results]:
    """Run everything, the smallest size first; yields what there is after each size.

    Args:
        measurement: What to measure with.
        sizes: Projects of the stack, rising.
        about: What the figures depend on.
        pods: Whether the release with real pods is timed too, at the smallest size.
    """
    results = Results(about, measurement.startup(), (), {}, ())
    for size in sizes:
        figures = measurement.size(size)
        profiles = measurement.profiles() if size in (sizes[0], sizes[-1]) else []
        with_pods = measurement.pods() if pods and size == sizes[0] else results.pods
        results = replace(
            results,
            sizes=(*results.sizes, figures),
            profiles=(*results.profiles, *profiles),
            pods=with_pods,
        )
        yield results
