"""This service beside other Python model servers, all serving the same tower with the same decoder and head."""
