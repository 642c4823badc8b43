-- For people: the rotation of the log. It is overdue when a session has prevented it for half of the retention, by a
-- lock on rows of `log_state` or `stripe`. Slots that are locked hold messages for longer than one and a half times the
-- retention.
CREATE VIEW {schema}.log_status AS
SELECT
    s.rotated_at,
    l.retention,
    l.chosen AS retention_set,
    greatest(l.needed, l.needed_before) AS retention_needed,
    clock_timestamp() > s.rotated_at + l.retention AS is_overdue,
    (SELECT count(*) FROM pg_inherits WHERE inhparent = '{schema}.message'::regclass) AS slots,
    (SELECT count(*) FROM {schema}.filled_slot AS f WHERE f.filled_at + l.retention * 1.75 < clock_timestamp()) AS locked_slots
FROM {schema}.log_state AS s, {schema}.log AS l
