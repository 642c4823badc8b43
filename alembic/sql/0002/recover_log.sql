-- Continues a durable log after a crash, or on a standby that was promoted, under a new identity; returns false if there
-- is nothing to continue. Ids continue with the time, past those that were taken and not used.
-- `former` gets the last id that the log really has: an asynchronous standby, or a crash after commits that did not wait
-- for the disk, may lack messages that a node has seen, and such a node must report a gap. A node that has only heard of a
-- greater id, perhaps of a batch that was never committed, has lost nothing; so the former identity has a second entry,
-- with all its bits inverted, which says that only messages count.
-- If unlogged slots still held messages, from before the log was made durable, these are lost. Then the former identity
-- ends before its first id, so that every node reports a gap; the second entry holds what is still there.
CREATE FUNCTION {schema}.recover_log(lasting bigint, new_identity bigint) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    saved {schema}.log_state;
    lost_until bigint;
    lost_at timestamptz;
    kept_lost_until bigint;
    kept_lost_at timestamptz;
    last_id bigint;
    first_id bigint;
BEGIN
    SELECT (jsonb_populate_record(NULL::{schema}.log_state, d.state)).* INTO saved
    FROM {schema}.durability AS d WHERE d.state IS NOT NULL;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO {schema}.filled_slot SELECT f.*
    FROM {schema}.durability AS d CROSS JOIN LATERAL jsonb_populate_recordset(NULL::{schema}.filled_slot, d.filled) AS f
    WHERE {schema}.is_logged(f.slot);
    INSERT INTO {schema}.kept_slot SELECT k.*
    FROM {schema}.durability AS d CROSS JOIN LATERAL jsonb_populate_recordset(NULL::{schema}.kept_slot, d.kept) AS k
    WHERE {schema}.is_logged(k.slot);
    SELECT max(k.last_id), max(coalesce(k.filled_at, clock_timestamp())) INTO kept_lost_until, kept_lost_at
    FROM {schema}.durability AS d CROSS JOIN LATERAL jsonb_populate_recordset(NULL::{schema}.kept_slot, d.kept) AS k
    WHERE NOT {schema}.is_logged(k.slot);
    SELECT max(f.last_id), max(f.filled_at) INTO lost_until, lost_at
    FROM {schema}.durability AS d CROSS JOIN LATERAL jsonb_populate_recordset(NULL::{schema}.filled_slot, d.filled) AS f
    WHERE NOT {schema}.is_logged(f.slot);

    last_id := greatest(saved.filled_until, {schema}.last_id_in(saved.slot)) | 511;  -- ids are taken in blocks of 512
    first_id := greatest((saved.began_at >> 53 << 53) + lasting, last_id + 4194305);
    PERFORM setval('{schema}.message_id', first_id);
    saved.former := saved.former || CASE
        WHEN lost_until IS NULL THEN ARRAY[
            [saved.identity, saved.identity_from, last_id], [~saved.identity, first_id - 1, first_id - 1]
        ]
        ELSE ARRAY[
            [saved.identity, saved.identity_from, saved.identity_from - 1], [~saved.identity, lost_until, last_id]
        ]
    END;
    IF lost_until > saved.gone_until THEN
        saved.gone_until := lost_until;
        saved.gone_at := greatest(saved.gone_at, lost_at);
    END IF;
    saved.kept_gone_until := greatest(saved.kept_gone_until, lost_until, kept_lost_until);
    saved.kept_gone_at := greatest(saved.kept_gone_at, lost_at, kept_lost_at);
    IF lost_until IS NOT NULL OR kept_lost_until IS NOT NULL THEN
        DELETE FROM {schema}.message WHERE address = 'gone:';  -- it does not say what was lost
    END IF;
    saved.identity := new_identity;
    saved.identity_from := first_id;
    saved.server_started_at := pg_postmaster_start_time();
    saved.file := pg_relation_filepath('{schema}.log_state'::regclass);
    saved.filenode := pg_relation_filenode('{schema}.log_state'::regclass);
    saved.swept_until := 0;
    INSERT INTO {schema}.log_state SELECT saved.*;
    RETURN true;
END
$$
