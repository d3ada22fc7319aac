"""From exact counts to milliseconds on a named device: with an interval, or not at all."""
