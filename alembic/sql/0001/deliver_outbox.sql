-- Runs when a transaction commits that has put messages into the outbox, and delivers all of them: so their topics are
-- locked only now, all at once, and until the end of the commit.
-- It runs twice. The first time it only adds a row to the outbox, so that the second time is behind everything else that
-- was deferred: a foreign key that waits for another transaction must not do so while topics are locked. If SET
-- CONSTRAINTS runs it early, it defers itself again; that it is the commit shows in both times being in one statement,
-- and in no trigger of somebody else.
-- Some transactions do not deliver. One that is repeatable read or serializable cannot see who has subscribed since it
-- began. One that has declared a cursor WITH HOLD runs its query during the commit, after all triggers. And one that has
-- delivered already, when a deferred trigger publishes again, must not lock more: two such could wait for each other.
-- Their messages stay in the outbox; a node delivers them right after the commit, or the next transaction that publishes,
-- whichever comes first: see deliver_undelivered().
CREATE FUNCTION {schema}.deliver_outbox() RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER  -- for those who may only publish
SET search_path = pg_catalog, pg_temp
SET trace_notify = off  -- it shows the names of nodes, which are secret, to the session that commits
-- As on our own connections, see pgchannels/database/connections.py: a plan may be made while tables are empty.
SET plan_cache_mode = force_generic_plan
SET enable_indexscan = on
SET enable_nestloop = on
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET jit = off
AS $$
DECLARE
    delivered constant text := 'pgchannels.delivered_' || TG_RELID;
BEGIN
    IF current_setting('max_prepared_transactions') <> '0' THEN
        PERFORM pg_notify('pgchannels', '');  -- nobody listens; a transaction that notifies cannot be prepared, and keep the locks
    END IF;
    IF current_setting('transaction_isolation') <> 'read committed'
       OR current_setting(delivered, true) = NEW.transaction::text
       OR EXISTS (SELECT FROM pg_cursors WHERE is_holdable AND creation_time >= transaction_timestamp())
    THEN
        INSERT INTO {schema}.undelivered (transaction) VALUES (NEW.transaction) ON CONFLICT (transaction) DO NOTHING;
        -- Some node that was there when the transaction began, preferably one that needs the messages.
        PERFORM pg_notify(found.node::text, 'o') FROM (
            SELECT n.id AS node FROM {schema}.node AS n
            ORDER BY EXISTS (
                SELECT FROM {schema}.subscription AS s WHERE s.node = n.id AND s.address = NEW.address
            ) DESC, n.leased_until DESC LIMIT 3
        ) AS found;
        RETURN NULL;
    END IF;
    IF NEW.queued_at IS DISTINCT FROM statement_timestamp() OR pg_trigger_depth() > 1 THEN
        SET CONSTRAINTS {schema}.deliver DEFERRED;
        INSERT INTO {schema}.outbox (transaction, is_first, queued_at, address, payload, expiry_seconds)
        VALUES (NEW.transaction, true, statement_timestamp(), '', '', 0);
        RETURN NULL;
    END IF;
    PERFORM set_config('pgchannels.transaction_' || TG_RELID, '', true), set_config(delivered, NEW.transaction::text, true);
    PERFORM {schema}.deliver_undelivered(NEW.transaction);  -- what was committed earlier
    PERFORM {schema}.deliver_transactions(ARRAY[NEW.transaction], false);
    RETURN NULL;
END
$$
