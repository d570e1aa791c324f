"""The command line: `ventral-client models|layers|classify|extract|fit|brain-report`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from .client import Client
from .connection import Tls
from .errors import VentralError
from .options import DataType, Pooling, Preprocessing
from .report import command as report

#: What is an image where a folder is named.
IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code."""
    chosen = parser().parse_args(arguments)
    try:
        if chosen.asks_server:
            with _client(chosen) as client:
                chosen.run(client, chosen)
        else:
            chosen.run(chosen)
    except VentralError as error:
        print(f"ventral-client: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Whoever read the output has read enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        print(f"ventral-client: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    common = argparse.ArgumentParser(add_help=False)
    server = common.add_argument_group("server")
    server.add_argument(
        "--address", default=os.environ.get("VENTRAL_ADDRESS", "localhost:50051"), metavar="HOST:PORT"
    )
    server.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="holds the token; without it, VENTRAL_TOKEN is the token",
    )
    server.add_argument("--tls", action="store_true", help="connect with TLS, as https://HOST:PORT does too")
    server.add_argument(
        "--authorities", type=Path, metavar="PEM", help="who may have signed the server's certificate"
    )

    about = argparse.ArgumentParser(add_help=False)
    about.add_argument("--model", help="needed where the server has several")
    about.add_argument("--version", default="", help="of the model; the newest unless named")

    images = argparse.ArgumentParser(add_help=False)
    images.add_argument(
        "images", nargs="+", type=Path, metavar="IMAGE", help="image files, or folders of them"
    )
    images.add_argument("--preprocessing", choices=get_args(Preprocessing)[:2], default="model")

    root = argparse.ArgumentParser(prog="ventral-client", description="Asks a Ventral server.")
    root.set_defaults(asks_server=True)
    commands = root.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("models", parents=[common], help="list the models")
    command.set_defaults(run=_models)

    command = commands.add_parser(
        "layers", parents=[common, about], help="list a model's layers and their shapes"
    )
    command.set_defaults(run=_layers)

    command = commands.add_parser("classify", parents=[common, about, images], help="name what images show")
    command.add_argument("--top-k", type=int, default=5, metavar="N")
    command.set_defaults(run=_classify)

    command = commands.add_parser(
        "extract",
        parents=[common, about, images],
        help="write activations to an HDF5 file; goes on where an earlier run was interrupted",
    )
    command.add_argument("--layers", required=True, metavar="LAYER,…", type=lambda text: text.split(","))
    command.add_argument("--output", "-o", required=True, type=Path, metavar="FILE.h5")
    command.add_argument("--pooling", choices=get_args(Pooling), default="none")
    command.add_argument("--data-type", choices=get_args(DataType), default="float32", help="what is sent")
    command.add_argument(
        "--skip-unreadable", action="store_true", help="rows of NaN for files that can't be read"
    )
    command.set_defaults(run=_extract)

    command = commands.add_parser(
        "fit",
        parents=[common, about, images],
        help="have the server fit the principal components of layers; prints each projection's name, layer, components "
        "and share of the variance",
    )
    command.add_argument("--layers", required=True, metavar="LAYER,…", type=lambda text: text.split(","))
    command.add_argument("--name", required=True, help="the projections are called NAME.LAYER")
    command.add_argument("--components", type=int, default=1000, metavar="N", help="of a projection at most")
    command.add_argument("--pooling", choices=get_args(Pooling), default="none")
    command.add_argument(
        "--seed", type=int, default=0, help="where there are too many images for an exact fit"
    )
    command.add_argument("--skip-unreadable", action="store_true", help="leave files out that can't be read")
    command.set_defaults(run=_fit)

    report.add_parser(commands).set_defaults(asks_server=False)
    return root


def files(paths: Sequence[Path]) -> list[Path]:
    """The files that are named, and the images in the folders that are, sorted."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = (file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
            found.extend(sorted(inside))
        else:
            found.append(path)
    if not found:
        raise VentralError(
            f"there are no images ({', '.join(IMAGE_SUFFIXES)}) in {', '.join(map(str, paths))}"
        )
    return found


def _client(chosen: argparse.Namespace) -> Client:
    token = os.environ.get("VENTRAL_TOKEN")
    if chosen.token_file is not None:
        try:
            token = chosen.token_file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise VentralError(f"--token-file: can't read {chosen.token_file}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise VentralError(f"--token-file: {chosen.token_file} isn't a text file: {error}") from error
    tls = (
        Tls(authorities=chosen.authorities)
        if chosen.authorities is not None
        else True
        if chosen.tls
        else None
    )
    return Client(chosen.address, token, tls)


def _models(client: Client, chosen: argparse.Namespace) -> None:
    for model in client.models():
        print(f"{model.name}\t{', '.join(model.versions)}")


def _layers(client: Client, chosen: argparse.Namespace) -> None:
    for layer, shape in client.model(chosen.model, chosen.version).shapes.items():
        print(f"{layer}\t{'x'.join(map(str, shape))}")


def _classify(client: Client, chosen: argparse.Namespace) -> None:
    paths = files(chosen.images)
    found = client.classify(
        paths, chosen.top_k, model=chosen.model, version=chosen.version, preprocessing=chosen.preprocessing
    )
    for path, predictions in zip(paths, found, strict=True):
        for prediction in predictions:
            print(f"{path}\t{prediction.name or prediction.index}\t{prediction.probability:.4f}")


def _extract(client: Client, chosen: argparse.Namespace) -> None:
    path = client.extract(
        files(chosen.images),
        chosen.layers,
        chosen.output,
        model=chosen.model,
        version=chosen.version,
        progress=_can_show_progress(),
        skip_unreadable=chosen.skip_unreadable,
        preprocessing=chosen.preprocessing,
        pooling=chosen.pooling,
        data_type=chosen.data_type,
    )
    print(path)


def _fit(client: Client, chosen: argparse.Namespace) -> None:
    found = client.fit_projections(
        files(chosen.images),
        chosen.layers,
        chosen.name,
        components=chosen.components,
        seed=chosen.seed,
        model=chosen.model,
        version=chosen.version,
        progress=_can_show_progress(),
        skip_unreadable=chosen.skip_unreadable,
        preprocessing=chosen.preprocessing,
        pooling=chosen.pooling,
    )
    for fitted in found.values():
        share = fitted.explained_variance_ratio.sum()
        print(f"{fitted.name}\t{fitted.layer}\t{fitted.components}\t{share:.4f}")


def _can_show_progress() -> bool:
    if not sys.stderr.isatty():
        return False
    try:
        import tqdm  # noqa: F401
    except ImportError:
        return False
    return True
