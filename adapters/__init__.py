"""Adapters turn (label set, backbone) into class weights. This package knows no HTTP, no Redis and no asyncio."""

from adapters.registry import METHOD_NAMES, create_adapter, describe_methods, resolve

__all__ = ["METHOD_NAMES", "create_adapter", "describe_methods", "resolve"]
