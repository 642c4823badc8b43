-- For people: the rotation of the log, and what a crash would leave of it. It is overdue when a session has prevented it
-- for half of the retention, by a lock on rows of `log_state` or `stripe`. Slots that are locked hold messages for longer
-- than one and a half times the retention.
-- `durability_holds` says whether new messages are as durable as was chosen, `is_durable` whether all in the log outlive a
-- crash: after a choice, older messages stay as they are, and leave with the retention.
CREATE OR REPLACE VIEW {schema}.log_status AS
SELECT
    s.rotated_at,
    l.retention,
    l.chosen AS retention_set,
    greatest(l.needed, l.needed_before) AS retention_needed,
    clock_timestamp() > s.rotated_at + l.retention AS is_overdue,
    (SELECT count(*) FROM pg_inherits WHERE inhparent = '{schema}.message'::regclass) AS slots,
    (SELECT count(*) FROM {schema}.filled_slot AS f WHERE f.filled_at + l.retention * 1.75 < clock_timestamp()) AS locked_slots,
    d.chosen AS durability,
    NOT EXISTS (
        SELECT FROM pg_class AS c WHERE (c.relpersistence = 'p') <> (d.chosen = 'durable')
        AND c.oid IN ('{schema}.outbox'::regclass, format('{schema}.message_%s', s.slot)::regclass)
    ) AS durability_holds,
    NOT EXISTS (
        SELECT FROM pg_class AS c WHERE c.relpersistence <> 'p' AND (
            c.oid IN ('{schema}.outbox'::regclass, format('{schema}.message_%s', s.slot)::regclass)
            OR c.oid IN (SELECT format('{schema}.message_%s', f.slot)::regclass FROM {schema}.filled_slot AS f)
            OR c.oid IN (SELECT format('{schema}.message_%s', k.slot)::regclass FROM {schema}.kept_slot AS k)
        )
    ) AS is_durable
FROM {schema}.log_state AS s, {schema}.log AS l, {schema}.durability AS d
